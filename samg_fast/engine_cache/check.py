"""Proof that an engine agrees with its bundle: it is run on what the fp32 files were given, before it is trusted."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from samg_fast.backends import Network, first_fitting
from samg_fast.bundle import Bundle, Role
from samg_fast.errors import BackendError, EngineParityError, MissingExtraError
from samg_fast.parity import OutputParity, Run, compare_outputs, record, sample_frames

__all__ = ["EngineCheck", "FindLayers", "find_layers"]

_Holds = Callable[[Any], bool]
_Arrays = dict[str, Any]

FindLayers = Callable[[Path, str, _Holds, Sequence[_Arrays], Callable[[str], None]], tuple[str, ...]]
"""`find_layers`, or what stands for it."""

_log = logging.getLogger("samg_fast")


def find_layers(
    path: Path, precision: str, holds: _Holds, feeds: Sequence[_Arrays], say: Callable[[str], None]
) -> tuple[str, ...]:
    """Find which layers must stay in float32; see `samg_fast.export.bisection.failing_layers`.

    Raises
    ------
    BackendError
        It fails in float32 too.
    MissingExtraError
        The export extra is not installed.
    """
    try:
        from samg_fast.export.bisection import failing_layers
    except ModuleNotFoundError as error:
        raise MissingExtraError("naming the layers that make it fail", "export") from error
    layers: tuple[str, ...] = failing_layers(path, precision, holds, feeds, say)
    return layers


class EngineCheck:
    """Holds a bundle's engines to what its fp32 files give on the processor, for sample frames.

    Parameters
    ----------
    bundle : Bundle
    batches : sequence of int
        Numbers of pictures at once to try.
    build : callable
        ``build(path, precision)`` compiles an ONNX file as the engines were compiled.
    run : callable
        ``run(name, engine)`` opens an engine where it is to run.
    find : callable
        How the layers of a network that does not hold are found.
    """

    def __init__(
        self,
        bundle: Bundle,
        batches: Sequence[int],
        *,
        build: Callable[[Path, str], bytes],
        run: Callable[[str, bytes], Network],
        find: FindLayers = find_layers,
    ) -> None:
        self._bundle, self._batches = bundle, batches
        self._build, self._run, self._find = build, run, find

    def __call__(self, role: Role, precision: str, engine: bytes) -> str:
        """Check an engine, and say in words how well it agrees.

        Parameters
        ----------
        role : str
        precision : str
            What the engine works in.
        engine : bytes

        Raises
        ------
        EngineParityError
            It does not hold `samg_fast.parity.THRESHOLDS`; the message names the layers.
        BackendError
            It cannot run.
        MissingExtraError
            No backend is installed for the fp32 files.
        """
        report = self._compare(role, precision, engine)
        wrong = next((each for each in report if not each.holds), None)
        if wrong is None:
            return f"cosine {min(each.cosine for each in report):.6f} with {self._runtime}'s fp32"
        raise EngineParityError(
            f"the engine of {self._bundle.name}'s {role} at {precision} does not agree with {self._runtime}'s fp32: "
            f"{wrong.output} differs by up to {wrong.largest:.2g} of its range, cosine {wrong.cosine:.4f}; it is not "
            f"kept{self._layers(role, precision)}"
        )

    @cached_property
    def _reference(self) -> tuple[str, dict[Role, list[Run]]]:
        """Which backend ran the fp32 files, and what went through them."""
        backend, bundle = first_fitting("fp32"), self._bundle
        networks = {role: backend.open(bundle.onnx_path(role)) for role in bundle.manifest.graphs}
        return backend.name, record(bundle, backend.name, networks, sample_frames())[1]

    @property
    def _runtime(self) -> str:
        return self._reference[0]

    def _compare(self, role: Role, precision: str, engine: bytes) -> list[OutputParity]:
        runs = self._reference[1][role]
        network = self._run(self._bundle.onnx_path(role, precision).name, engine)
        report = []
        for batch in self._batches:
            # Each number of pictures has kernels of its own: the first is tried on all runs, the others on one
            tried = runs if batch == self._batches[0] else runs[:1]
            taken = [(_repeated(given, batch), _repeated(wanted, batch)) for given, wanted in tried]
            report += compare_outputs(network, taken, role=role, precision=precision, runtime="engine")
        return report

    def _layers(self, role: Role, precision: str) -> str:
        """Name the layers that make it fail, as the end of a sentence."""
        if precision == "fp32":
            return ""
        name = f"{self._bundle.name}'s {role} at {precision}"
        _log.info("the engine of %s does not hold: looking for the layers that make it fail", name)
        feeds = [given for given, _ in self._reference[1][role]]
        try:
            layers = self._find(
                self._bundle.onnx_path(role), precision, self._holder(role, precision), feeds, _log.info
            )
        except (BackendError, MissingExtraError) as error:
            return f"; {error}"
        if not layers:
            return "; its fp32 file holds when it is converted anew: export the bundle again"
        return f"; it holds where these layers stay in fp32: {', '.join(layers)}"

    def _holder(self, role: Role, precision: str) -> _Holds:
        """Return what builds a graph with layers in both precisions and tries it as the engine was tried."""
        name = self._bundle.onnx_path(role, precision).name

        def holds(model: Any) -> bool:
            from samg_fast.export.graph import save_graph

            with tempfile.TemporaryDirectory(prefix="samg-fast-") as folder:
                path = Path(folder) / name
                save_graph(model, path)
                engine = self._build(path, precision)
            return all(each.holds for each in self._compare(role, precision, engine))

        return holds


def _repeated(arrays: _Arrays, batch: int) -> _Arrays:
    """Repeat one picture's arrays so often; those of a graph that takes a fixed number have that many already."""
    return {name: x if len(x) == batch else np.repeat(x[:1], batch, axis=0) for name, x in arrays.items()}
