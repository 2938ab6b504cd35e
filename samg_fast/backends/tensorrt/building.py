"""Compile ONNX files to engines, with progress reports; Ctrl-C ends a build."""

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
"""Version of the build settings: flags, types and profiles, here and in `dialect`. Increase it when they change.

Cached engines that were built with another recipe are not used.
"""


@dataclass(frozen=True)
class BuiltEngine:
    """The result of a build.

    Parameters
    ----------
    engine : bytes
        The engine, which `samg_fast.backends.tensorrt.TensorRtNetwork` opens.
    timing_cache : bytes
        Kernel timings for the next build on this GPU with this version; empty for TensorRT-RTX, which times nothing.
    """

    engine: bytes
    timing_cache: bytes


def check_capabilities(backend: str, capabilities: Sequence[str]) -> None:
    """Check that engines can be built ahead of time for compute capabilities.

    Parameters
    ----------
    backend : {"tensorrt", "tensorrt-rtx"}
    capabilities : sequence of str
        Compute capabilities, ``"8.9"`` and so on.

    Raises
    ------
    InputError
        The library does not support one of them, or builds only for the GPU of this machine.
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

    Every tensor keeps its type in the file, and TensorFloat-32 is never used. The build runs in a separate thread, so
    that Ctrl-C reaches the caller; the build then ends at its next step and KeyboardInterrupt is raised.

    Parameters
    ----------
    path : str or os.PathLike
        The ONNX file, with any external weights in the same folder.
    backend : {"tensorrt", "tensorrt-rtx"}
    precision : str
        The file's precision, for error messages.
    batches : sequence of int
        Batch sizes in ascending order. The engine is tuned for each and accepts any batch up to the last. For a graph
        with a fixed batch size, that size only.
    capabilities : sequence of str
        Compute capabilities to build for, ``"8.9"`` and so on; by default the GPU of this machine.
    index : int
        Which GPU, if no capability is given.
    timing_cache : bytes
        The timing cache of an earlier build.
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
        except BaseException:  # mainly KeyboardInterrupt
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
    """The arguments of `build_engine`, and the steps of a build."""

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
        """Parse and compile in the current thread."""
        if index is not None:
            _use_gpu(index)
        library = self.library
        library.messages.clear()
        builder = library.library.Builder(library.messages)
        network = library.create_network(builder)
        parser = library.library.OnnxParser(network, library.messages)  # owns the weights, so it must outlive the build
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
        # From the path, not the content, so that the library finds external weights
        if parser.parse_from_file(str(self.path)):
            return
        errors = [parser.get_error(each) for each in range(parser.num_errors)]
        placed = [_line(error) for error in errors if error.node_name() or error.node_operator()]
        if placed:
            raise BackendError(f"{self.library.title} cannot {self.what}: {'; '.join(placed)}")
        raise self.library.failure(self.what)

    def _add_profiles(self, builder: Any, network: Any, config: Any) -> None:
        """Add an optimisation profile per batch size; each covers the range above the previous one."""
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
        smallest = 1
        for largest in self.batches:
            profile = builder.create_optimization_profile()
            for each in inputs:
                rest = tuple(each.shape)[1:]
                profile.set_shape(each.name, (smallest, *rest), (largest, *rest), (largest, *rest))
            config.add_optimization_profile(profile)
            smallest = largest + 1


def _line(error: Any) -> str:
    """Describe which node the parser rejects, and why."""
    node = f"node {error.node_name()} ({error.node_operator()})"
    return f"{node} is refused: {' '.join(error.desc().split())} ({Path(error.file()).name}:{error.line()})"


def _use_gpu(index: int) -> None:
    """Make a GPU current in this thread."""
    try:
        from cuda.core import Device
    except ImportError as error:
        raise MissingExtraError("a GPU", "cuda") from error
    try:
        Device(index).set_current()
    except Exception as error:  # cuda-core's exception classes are not public
        raise BackendError(f"GPU {index} cannot be used: {error}") from error
