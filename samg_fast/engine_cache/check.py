"""Check that an engine agrees with its bundle: run it on the inputs of the fp32 files and compare the outputs."""

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
"""The type of `find_layers`, which tests replace."""

_log = logging.getLogger("samg_fast")


def find_layers(
    path: Path, precision: str, holds: _Holds, feeds: Sequence[_Arrays], say: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the layers that must stay in float32; see `samg_fast.export.bisection.failing_layers`.

    Raises
    ------
    BackendError
        The network fails in float32 too.
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
    """Compares a bundle's engines with its fp32 files on the CPU, for sample frames.

    Parameters
    ----------
    bundle : Bundle
    batches : sequence of int
        Batch sizes to try.
    build : callable
        ``build(path, precision)`` compiles an ONNX file with the same settings as the engines.
    run : callable
        ``run(name, engine)`` opens an engine on its GPU.
    find : callable
        Finds the layers that make a network exceed the thresholds.
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
        """Check an engine, and describe how well it agrees.

        Parameters
        ----------
        role : str
        precision : str
            The precision of the engine.
        engine : bytes

        Raises
        ------
        EngineParityError
            The engine exceeds `samg_fast.parity.THRESHOLDS`; the message names the layers.
        BackendError
            The engine cannot run.
        MissingExtraError
            No backend that can run the fp32 files is installed.
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
        """The backend that ran the fp32 files, and the recorded calls of each network."""
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
            # Each batch size has its own kernels: the first is tried on all runs, the others on one run
            tried = runs if batch == self._batches[0] else runs[:1]
            taken = [(_repeated(given, batch), _repeated(wanted, batch)) for given, wanted in tried]
            report += compare_outputs(network, taken, role=role, precision=precision, runtime="engine")
        return report

    def _layers(self, role: Role, precision: str) -> str:
        """Return the end of an error sentence that names the layers that make the engine fail."""
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
        """Return a predicate that builds a mixed-precision graph and compares it as the engine was compared."""
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
    """Repeat one image's arrays to a batch; arrays of a graph with a fixed batch size have that size already."""
    return {name: x if len(x) == batch else np.repeat(x[:1], batch, axis=0) for name, x in arrays.items()}
