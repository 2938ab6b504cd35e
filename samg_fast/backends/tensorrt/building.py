"""Engines of ONNX files: parsed and compiled, with progress, and an end to it at Ctrl-C."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samg_fast.backends.tensorrt import dialect
from samg_fast.backends.tensorrt.progress import Progress, monitor
from samg_fast.devices import driver
from samg_fast.errors import BackendError, InputError, MissingExtraError

__all__ = ["RECIPE", "BuiltEngine", "build_engine", "check_capabilities"]

RECIPE = 1
"""Raise it whenever the same file would become another engine: by other flags, types or profiles, here or in `dialect`.

Engines of other recipes in a cache are not used.
"""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine.

    Parameters
    ----------
    engine : bytes
        As `samg_fast.backends.tensorrt.TensorRtNetwork` opens it.
    timing_cache : bytes
        What was timed, for the next build on this GPU with this version; empty where the library times nothing.
    """

    engine: bytes
    timing_cache: bytes


def check_capabilities(backend: str, capabilities: Sequence[str]) -> None:
    """Check that engines can be built for GPUs that are not here.

    Parameters
    ----------
    backend : {"tensorrt", "tensorrt-rtx"}
    capabilities : sequence of str
        Compute capabilities, ``"8.9"`` and so on.

    Raises
    ------
    InputError
        The library does not know one of them, or builds only for the GPU here.
    MissingExtraError, BackendError
        The library is not installed, or cannot be loaded.
    """
    library = dialect.load(backend)
    known = library.capabilities
    for each in capabilities:
        if not known:
            raise InputError(
                f"compute_capability is {each!r}, but {library.title} builds engines only on the GPU that runs them"
            )
        if each not in known:
            held = ", ".join(known)
            raise InputError(f"compute_capability is {each!r}, but {library.title} builds ahead of time for {held}")


def build_engine(
    path: str | os.PathLike[str],
    *,
    backend: str,
    precision: str,
    batches: Sequence[int],
    capabilities: Sequence[str] = (),
    index: int = 0,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
) -> BuiltEngine:
    """Compile an ONNX file to an engine.

    Every tensor keeps the type it has in the file, and float32 is never TensorFloat-32. The build runs in a thread of
    its own, so that Ctrl-C reaches the caller: it ends the build at its next step, and raises KeyboardInterrupt then.

    Parameters
    ----------
    path : str or os.PathLike
        The ONNX file; weights that it refers to lie beside it.
    backend : {"tensorrt", "tensorrt-rtx"}
    precision : str
        What the file holds, for messages.
    batches : sequence of int
        Numbers of pictures at once, in rising order: the engine is tuned for each, and takes any number up to the
        last. A graph that takes a fixed number takes that one alone.
    capabilities : sequence of str
        Compute capabilities to build for, ``"8.9"`` and so on; by default the GPU here.
    index : int
        Which GPU, where no capability is named.
    timing_cache : bytes
        An earlier build's.
    progress : Progress, optional

    Raises
    ------
    InputError
        `batches` or `capabilities` cannot be built for.
    BackendError
        The file cannot be read or compiled, there is no GPU to build on, or the library cannot be loaded.
    MissingExtraError
        The library is not installed.
    """
    library = dialect.load(backend)
    check_capabilities(backend, capabilities)
    tuned = tuple(batches)
    if not tuned or tuned[0] < 1 or any(one >= other for one, other in itertools.pairwise(tuned)):
        raise InputError(f"batches is {tuned}, expected whole numbers above 0 in rising order")
    if not capabilities:
        _check_gpu(library, index)
    build = _Build(library, Path(path), precision, tuned, capabilities, timing_cache)
    watch = monitor(library.library, progress)
    with ThreadPoolExecutor(1, "samg-fast-build") as pool:
        running = pool.submit(build.run, watch, None if capabilities else index)
        try:
            return running.result()
        except BaseException:  # KeyboardInterrupt, above all
            watch.cancel()
            raise


def _check_gpu(library: dialect.Dialect, index: int) -> None:
    seen = driver.find()
    if index >= len(seen.found):
        reason = seen.reason or f"there is no GPU {index}"
        known = library.capabilities
        instead = f"; name a compute capability to build ahead of time: {', '.join(known)}" if known else ""
        raise BackendError(f"{library.title} cannot build for the GPU here: {reason}{instead}")


@dataclass(frozen=True)
class _Build:
    """What is built: `build_engine`'s arguments."""

    library: dialect.Dialect
    path: Path
    precision: str
    batches: tuple[int, ...]
    capabilities: Sequence[str]
    timing_cache: bytes

    @property
    def what(self) -> str:
        target = f" for compute capability {', '.join(self.capabilities)}" if self.capabilities else ""
        return f"build {self.path.name} at {self.precision}{target}"

    def run(self, watch: Any, index: int | None) -> BuiltEngine:
        """Parse and compile, in this thread."""
        if index is not None:
            _use_gpu(index)
        library = self.library
        library.messages.clear()
        builder = library.library.Builder(library.messages)
        network = library.create_network(builder)
        parser = library.library.OnnxParser(network, library.messages)  # it holds the weights until the build is done
        self._parse(parser)
        config = library.create_config(builder, self.capabilities, self.timing_cache)
        self._add_profiles(builder, network, config)
        config.progress_monitor = watch
        library.messages.clear()
        engine = builder.build_serialized_network(network, config)
        if watch.error is not None:
            raise watch.error
        if engine is None:
            raise library.failure(self.what)
        return BuiltEngine(bytes(engine), library.timing_cache(config))

    def _parse(self, parser: Any) -> None:
        try:
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise BackendError(f"{self.path} cannot be read: {error.strerror or error}") from error
        # By its path, not its content: the library looks for weights beside it
        if parser.parse_from_file(str(self.path)):
            return
        errors = [parser.get_error(each) for each in range(parser.num_errors)]
        placed = [_line(error) for error in errors if error.node_name() or error.node_operator()]
        if placed:
            raise BackendError(f"{self.library.title} cannot {self.what}: {'; '.join(placed)}")
        raise self.library.failure(self.what)

    def _add_profiles(self, builder: Any, network: Any, config: Any) -> None:
        """Give the engine a profile for each number of pictures and those below it, down to the one before."""
        inputs = [network.get_input(each) for each in range(network.num_inputs)]
        if not inputs or not network.num_outputs:
            raise BackendError(f"{self.path} is no ONNX graph: it has no inputs and outputs")
        firsts = {tuple(each.shape)[:1] for each in inputs}
        if len(firsts) > 1 or any(-1 in tuple(each.shape)[1:] for each in inputs):
            shapes = ", ".join(f"{each.name} {tuple(each.shape)}" for each in inputs)
            raise BackendError(f"{self.path.name} takes {shapes}: only the first axis, the same of all, may vary")
        (first,) = firsts
        if first != (-1,):
            if self.batches != first:
                taken = first[0] if first else "no"
                raise InputError(f"batches is {self.batches}, but {self.path.name} takes {taken} pictures at once")
            return
        least = 1
        for most in self.batches:
            profile = builder.create_optimization_profile()
            for each in inputs:
                rest = tuple(each.shape)[1:]
                profile.set_shape(each.name, (least, *rest), (most, *rest), (most, *rest))
            config.add_optimization_profile(profile)
            least = most + 1


def _line(error: Any) -> str:
    """Say which node the parser refuses, and why."""
    node = f"node {error.node_name()} ({error.node_operator()})"
    return f"{node} is refused: {' '.join(error.desc().split())} ({Path(error.file()).name}:{error.line()})"


def _use_gpu(index: int) -> None:
    """Make a GPU the current one of this thread."""
    try:
        from cuda.core import Device
    except ImportError as error:
        raise MissingExtraError("a GPU", "cuda") from error
    try:
        Device(index).set_current()
    except Exception as error:  # cuda-core's own kinds are not public
        raise BackendError(f"GPU {index} cannot be used: {error}") from error
