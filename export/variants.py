"""The float32 graphs of a bundle at other precisions, each held to what the float32 networks gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from samg_fast import ops
from samg_fast.backends import Network, first_fitting, open_networks, probe
from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeBackend
from samg_fast.bundle import PRECISIONS, Bundle, FileSpec, Manifest, NetworkSpec, Role, sha256_of, write_manifest
from samg_fast.errors import BackendError, BundleError, InputError, InputTypeError
from samg_fast.parity import FrameParity, OutputParity, Run, Sample, compare_frames, compare_outputs, trace_frames
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter

from .agreement import emulated_network, with_agreement
from .emulate import measure_ranges
from .graph import save_graph
from .precision import to_half, watched
from .quantise import calibration_frames, to_int8

__all__ = ["ExportReport", "Findings", "Say", "Variants", "file_name", "precisions"]

Say = Callable[[str], None]
"""Told what is being done."""

_FIRST_IOU = 0.995  # of the first decode's masks, which no other decode's rounding has reached


@dataclass(frozen=True)
class ExportReport:
    """What an export made and how well it agrees with its reference.

    Parameters
    ----------
    path : pathlib.Path
        The bundle's folder.
    reference : str
        What the networks were compared with.
    outputs : tuple of OutputParity
        Every output of every network at every precision.
    frames : tuple of FrameParity
        Whole SAM-G frames at every precision that can run here.
    notes : tuple of str
        What else there is to know, one sentence each.
    """

    path: Path
    reference: str
    outputs: tuple[OutputParity, ...]
    frames: tuple[FrameParity, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "path": str(self.path)}


@dataclass
class Findings:
    """Collects what a report will say, and refuses what does not hold.

    Parameters
    ----------
    reference : str
        What the networks are compared with.
    samples : sequence of Sample
        Frames that are segmented at every precision.
    wanted : sequence of Segmentation
        What the reference made of them, traced.
    """

    reference: str
    samples: Sequence[Sample]
    wanted: Sequence[Segmentation]
    outputs: list[OutputParity] = field(default_factory=list)
    frames: list[FrameParity] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def hold(self, report: Sequence[OutputParity]) -> None:
        """Keep a report, and refuse the bundle if it says that a network does not hold.

        Raises
        ------
        BundleError
            It does not.
        """
        self.outputs += report
        for each in report:
            if not each.holds:
                raise BundleError(
                    f"{each.role} at {each.precision} does not agree with {self.reference}: {each.output} differs by "
                    f"up to {each.largest:.2g} of its range, cosine {each.cosine:.4f}, correlation "
                    f"{each.correlation:.4f}"
                )

    def check_frames(self, folder: Path, manifest: Manifest, kind: str) -> None:
        """Segment the sample at a precision; at fp32 the points and the first decode's masks must be the reference's.

        Raises
        ------
        BundleError
            They are not.
        """
        try:
            backend = first_fitting(kind)
        except BackendError as error:  # a precision that no processor here computes in
            self.notes.append(f"{kind}: no frame was segmented: {error}")
            return
        bundle = Bundle(folder, manifest)
        with Segmenter(bundle, backend, open_networks(bundle, backend)) as segmenter:
            found = trace_frames(segmenter, self.samples)
        parity = compare_frames(found, self.wanted, precision=kind, runtime=backend.name)
        self.frames.append(parity)
        if kind == "fp32" and (parity.moved or parity.first_iou < _FIRST_IOU):
            raise BundleError(
                f"SAM-G frames at fp32 do not agree with {self.reference}: {parity.moved} of {parity.points} points "
                f"moved, lowest IoU of the first decode's masks {parity.first_iou:.4f}, expected {_FIRST_IOU}"
            )

    def report(self, folder: Path) -> ExportReport:
        """Return all of it."""
        return ExportReport(folder, self.reference, tuple(self.outputs), tuple(self.frames), tuple(self.notes))


class Variants:
    """Writes the files of a bundle.

    Parameters
    ----------
    folder : pathlib.Path
        The bundle's.
    runs : mapping of Role to sequence of Run
        What went through each network of the reference. Where encoder and features are one graph, ``"encoder"`` alone.
    batch : int or None
        Pictures that every graph takes at once; None for any number.
    findings : Findings
        Gets what comes out.
    """

    def __init__(self, folder: Path, runs: Mapping[Role, Sequence[Run]], batch: int | None, findings: Findings) -> None:
        self.folder, self.runs, self.batch, self.findings = folder, runs, batch, findings
        self._ranges: dict[Role, dict[str, float]] = {}  # the same at every half precision

    def save(self, model: onnx.ModelProto, role: Role, kind: str) -> FileSpec:
        """Write a graph under its name."""
        path = self.folder / file_name(role, kind)
        data = save_graph(model, path)
        digest = sha256_of(self.folder / data) if data else None
        return FileSpec(file=path.name, sha256=sha256_of(path), data=data, data_sha256=digest)

    def save_float(self, model: onnx.ModelProto, role: Role) -> FileSpec:
        """Write a float32 graph and hold it to the reference, on ONNX Runtime: the most literal of the runtimes."""
        spec = self.save(model, role, "fp32")
        network = OnnxRuntimeBackend("fp32", None).open(self.folder / spec.file)
        self.findings.hold(self._compare(network, role, "fp32", "onnxruntime"))
        return spec

    def finish(
        self, manifest: Manifest, graphs: Mapping[Role, onnx.ModelProto], kinds: Sequence[str], say: Say
    ) -> ExportReport:
        """Write the files of every other precision, hold each to the reference, and the manifest at the end.

        Raises
        ------
        BundleError
            An image network does not hold its threshold; there is no manifest then.
        """
        for kind in kinds:
            say(f"{kind}: making the networks")
            manifest = self._add(manifest, graphs, kind)
            self.findings.check_frames(self.folder, manifest, kind)
        say("segmenting frames at every precision that can run here")
        manifest = with_agreement(Bundle(self.folder, manifest))
        write_manifest(self.folder, manifest)
        return self.findings.report(self.folder)

    def _add(self, manifest: Manifest, graphs: Mapping[Role, onnx.ModelProto], kind: str) -> Manifest:
        """Write the files of a precision, and return the manifest with them in it."""
        files: dict[Role, FileSpec] = {}
        for role, graph in graphs.items():
            spec = (
                self._quantised(manifest, role, graph) if kind == "int8" else self._halved(manifest, role, graph, kind)
            )
            if spec is not None:
                files[role] = spec
        if manifest.shared_graph:
            files["features"] = files["encoder"]
        variants = {**manifest.precision_files, kind: files}
        kinds = ("fp32", *(each for each in PRECISIONS if each in variants))
        return replace(manifest, precisions=kinds, precision_files=variants)

    def _quantised(self, manifest: Manifest, role: Role, graph: onnx.ModelProto) -> FileSpec | None:
        if role == "decoder":
            self.findings.notes.append("int8: the decoder stays in fp32, as it is not quantised")
            return None
        image: NetworkSpec = getattr(manifest, role)
        inputs = [self._batched({"image": ops.preprocess(f[None], [image])[0]})["image"] for f in calibration_frames()]
        spec = self.save(to_int8(graph, inputs, transformer=role == "features"), role, "int8")
        self.findings.hold(self._compare_on_cpu(spec.file, role, "int8"))
        return spec

    def _halved(self, manifest: Manifest, role: Role, graph: onnx.ModelProto, kind: str) -> FileSpec | None:
        if role not in self._ranges:
            # Ranges of some frames are enough: they have a headroom of eight times
            feeds = [self._batched(inputs) for inputs, _ in self.runs[role]]
            self._ranges[role] = measure_ranges(graph, watched(graph.graph), feeds)
        model = to_half(graph, kind, self._ranges[role])
        report = self._compare(emulated_network(model, role), role, kind, "emulated")
        if kind == "bf16" and any(each.name == "openvino" and "bf16" in each.precisions for each in probe()):
            report += self._compare_on_cpu(manifest.file(role).file, role, kind)
        if role == "decoder" and not all(each.holds for each in report):
            self.findings.outputs += report
            worst = min(each.correlation for each in report if each.output == "low_res_masks")
            self.findings.notes.append(
                f"{kind}: the decoder stays in fp32; in {kind} its logits correlate by {worst:.3f} only"
            )
            return None
        self.findings.hold(report)
        return self.save(model, role, kind)

    def _batched(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Repeat one picture's arrays as often as the graphs take pictures at once."""
        return {name: np.repeat(array[:1], self.batch or 1, axis=0) for name, array in arrays.items()}

    def _compare(self, network: Network, role: Role, kind: str, runtime: str) -> list[OutputParity]:
        runs = [(self._batched(inputs), self._batched(outputs)) for inputs, outputs in self.runs[role]]
        return compare_outputs(network, runs, role=role, precision=kind, runtime=runtime)

    def _compare_on_cpu(self, file: str, role: Role, kind: str) -> list[OutputParity]:
        backend = first_fitting(kind)
        return self._compare(backend.open(self.folder / file, kind), role, kind, backend.name)


def file_name(role: Role, kind: str = "fp32") -> str:
    """Name the ONNX file of a network at a precision."""
    return f"{role}.onnx" if kind == "fp32" else f"{role}.{kind}.onnx"


def precisions(precision: str | Sequence[str]) -> tuple[str, ...]:
    """Return those asked for beside fp32, in the order of `PRECISIONS`.

    Raises
    ------
    InputError, InputTypeError
        One is no precision.
    """
    if isinstance(precision, str):
        asked = [each.strip() for each in precision.split(",")]
    elif isinstance(precision, Sequence) and all(isinstance(each, str) for each in precision):
        asked = list(precision)
    else:
        raise InputTypeError(f"precision must be a name or a sequence of names, not {precision!r}")
    for each in asked:
        if each not in PRECISIONS:
            raise InputError(f"precision is {each!r}, expected some of {', '.join(PRECISIONS)}")
    return tuple(each for each in PRECISIONS if each in asked and each != "fp32")
