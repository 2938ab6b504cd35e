"""Writes a bundle's graphs at every precision, and compares each with the baseline's outputs."""

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
from samg_fast.bundle import (
    PRECISIONS,
    Bundle,
    FileSpec,
    NetworkSpec,
    PromptedManifest,
    Role,
    sha256_of,
    write_manifest,
)
from samg_fast.errors import BackendError, BundleError, InputError, InputTypeError
from samg_fast.parity import FrameParity, OutputParity, Run, Sample, compare_frames, compare_outputs, trace_frames
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter

from .agreement import emulated_network, with_agreement
from .emulate import measure_ranges
from .graph import save_graph
from .precision import to_half, watched
from .quantise import calibration_frames, to_int8

__all__ = ["ExportReport", "Findings", "Say", "Variants", "file_name", "parse_precisions"]

Say = Callable[[str], None]
"""Called with a line about each stage."""

_FIRST_IOU = 0.995  # minimum for the masks of the first decode, which are free of rounding from earlier decodes


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and how well it agrees with the baseline.

    Parameters
    ----------
    path : pathlib.Path
        The bundle's folder.
    reference : str
        The baseline: what the networks were compared with, such as ``"PyTorch"``.
    outputs : tuple of OutputParity
        Every output of every network at every precision.
    frames : tuple of FrameParity
        Whole SAM-G frames at every precision that can run on this machine.
    notes : tuple of str
        Further remarks, one sentence each.
    """

    path: Path
    reference: str
    outputs: tuple[OutputParity, ...]
    frames: tuple[FrameParity, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {**asdict(self), "path": str(self.path)}


@dataclass
class Findings:
    """Collects the contents of a report, and raises an error if a comparison fails.

    Parameters
    ----------
    baseline : str
        Name of what the networks are compared with.
    samples : sequence of Sample
        Frames to segment at every precision.
    expected : sequence of Segmentation
        The baseline's results for them, with traces.
    """

    baseline: str
    samples: Sequence[Sample]
    expected: Sequence[Segmentation]
    outputs: list[OutputParity] = field(default_factory=list)
    frames: list[FrameParity] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require(self, report: Sequence[OutputParity]) -> None:
        """Keep a comparison, and raise an error if a network fails it.

        Raises
        ------
        BundleError
            A network does not agree with the baseline.
        """
        self.outputs += report
        for each in report:
            if not each.holds:
                raise BundleError(
                    f"{each.role} at {each.precision} does not agree with {self.baseline}: {each.output} differs by "
                    f"up to {each.largest:.2g} of its range, cosine {each.cosine:.4f}, correlation "
                    f"{each.correlation:.4f}"
                )

    def check_frames(self, folder: Path, manifest: PromptedManifest, precision: str) -> None:
        """Segment the samples at a precision; at fp32, points and first decodes must agree with the baseline's.

        Raises
        ------
        BundleError
            They do not.
        """
        try:
            backend = first_fitting(precision)
        except BackendError as error:  # no processor of this machine has this precision
            self.notes.append(f"{precision}: no frame was segmented: {error}")
            return
        bundle = Bundle(folder, manifest)
        with Segmenter(bundle, backend, open_networks(bundle, backend)) as segmenter:
            found = trace_frames(segmenter, self.samples)
        parity = compare_frames(found, self.expected, precision=precision, runtime=backend.name)
        self.frames.append(parity)
        if precision == "fp32" and (parity.moved or parity.first_iou < _FIRST_IOU):
            raise BundleError(
                f"SAM-G frames at fp32 do not agree with {self.baseline}: {parity.moved} of {parity.points} points "
                f"moved, lowest IoU of the first decode's masks {parity.first_iou:.4f}, expected {_FIRST_IOU}"
            )

    def report(self, folder: Path) -> ExportReport:
        """Return what was collected."""
        return ExportReport(folder, self.baseline, tuple(self.outputs), tuple(self.frames), tuple(self.notes))


class Variants:
    """Writes the files of a bundle.

    Parameters
    ----------
    folder : pathlib.Path
        The bundle's folder.
    runs : mapping of Role to sequence of Run
        Inputs and outputs of each of the baseline's networks; of ``"encoder"`` only if it shares a graph with features.
    batch : int or None
        Batch size of every graph; None for any.
    findings : Findings
        Collects the results.
    """

    def __init__(self, folder: Path, runs: Mapping[Role, Sequence[Run]], batch: int | None, findings: Findings) -> None:
        self.folder, self.runs, self.batch, self.findings = folder, runs, batch, findings
        self._ranges: dict[Role, dict[str, float]] = {}  # measured once for all half precisions

    def save(self, model: onnx.ModelProto, role: Role, precision: str) -> FileSpec:
        """Write a graph under the name of its role and precision."""
        path = self.folder / file_name(role, precision)
        data = save_graph(model, path)
        digest = sha256_of(self.folder / data) if data else None
        return FileSpec(file=path.name, sha256=sha256_of(path), data=data, data_sha256=digest)

    def save_float(self, model: onnx.ModelProto, role: Role) -> FileSpec:
        """Write a float32 graph and compare it with the baseline on ONNX Runtime, which changes a graph the least."""
        spec = self.save(model, role, "fp32")
        network = OnnxRuntimeBackend("fp32", None).open(self.folder / spec.file)
        self.findings.require(self._compare(network, role, "fp32", "onnxruntime"))
        return spec

    def finish(
        self, manifest: PromptedManifest, graphs: Mapping[Role, onnx.ModelProto], precisions: Sequence[str], say: Say
    ) -> ExportReport:
        """Write the files of the other precisions, compare each with the baseline, and write the manifest last.

        Raises
        ------
        BundleError
            An image network misses its threshold; no manifest is written then.
        """
        for precision in precisions:
            say(f"{precision}: making the networks")
            manifest = self._add(manifest, graphs, precision)
            self.findings.check_frames(self.folder, manifest, precision)
        say("segmenting frames at every precision that can run here")
        manifest = with_agreement(self.folder, manifest)
        write_manifest(self.folder, manifest)
        return self.findings.report(self.folder)

    def _add(
        self, manifest: PromptedManifest, graphs: Mapping[Role, onnx.ModelProto], precision: str
    ) -> PromptedManifest:
        """Write the files of a precision, and return the manifest with them added."""
        files: dict[Role, FileSpec] = {}
        for role, graph in graphs.items():
            spec = (
                self._quantised(manifest, role, graph)
                if precision == "int8"
                else self._halved(manifest, role, graph, precision)
            )
            if spec is not None:
                files[role] = spec
        if manifest.shared_graph:
            files["features"] = files["encoder"]
        variants = {**manifest.precision_files, precision: files}
        precisions = ("fp32", *(each for each in PRECISIONS if each in variants))
        return replace(manifest, precisions=precisions, precision_files=variants)

    def _quantised(self, manifest: PromptedManifest, role: Role, graph: onnx.ModelProto) -> FileSpec | None:
        if role == "decoder":
            self.findings.notes.append("int8: the decoder stays in fp32, as it is not quantised")
            return None
        image: NetworkSpec = getattr(manifest, role)
        inputs = [self._batched({"image": ops.preprocess(f[None], [image])[0]})["image"] for f in calibration_frames()]
        spec = self.save(to_int8(graph, inputs, transformer=role == "features"), role, "int8")
        self.findings.require(self._compare_on_cpu(spec.file, role, "int8"))
        return spec

    def _halved(
        self, manifest: PromptedManifest, role: Role, graph: onnx.ModelProto, precision: str
    ) -> FileSpec | None:
        if role not in self._ranges:
            # A few frames are enough, as ranges have a headroom of a factor of eight
            feeds = [self._batched(inputs) for inputs, _ in self.runs[role]]
            self._ranges[role] = measure_ranges(graph, watched(graph.graph), feeds)
        model = to_half(graph, precision, self._ranges[role])
        report = self._compare(emulated_network(model, role), role, precision, "emulated")
        if precision == "bf16" and any(each.name == "openvino" and "bf16" in each.precisions for each in probe()):
            report += self._compare_on_cpu(manifest.file(role).file, role, precision)
        if role == "decoder" and not all(each.holds for each in report):
            self.findings.outputs += report
            worst = min(each.correlation for each in report if each.output == "low_res_masks")
            self.findings.notes.append(
                f"{precision}: the decoder stays in fp32; in {precision} its logits correlate by {worst:.3f} only"
            )
            return None
        self.findings.require(report)
        return self.save(model, role, precision)

    def _batched(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Repeat the arrays of one image to the batch size of the graphs."""
        return {name: np.repeat(array[:1], self.batch or 1, axis=0) for name, array in arrays.items()}

    def _compare(self, network: Network, role: Role, precision: str, runtime: str) -> list[OutputParity]:
        runs = [(self._batched(inputs), self._batched(outputs)) for inputs, outputs in self.runs[role]]
        return compare_outputs(network, runs, role=role, precision=precision, runtime=runtime)

    def _compare_on_cpu(self, file: str, role: Role, precision: str) -> list[OutputParity]:
        backend = first_fitting(precision)
        return self._compare(backend.open(self.folder / file, precision), role, precision, backend.name)


def file_name(role: Role, precision: str = "fp32") -> str:
    """Name the ONNX file of a network at a precision."""
    return f"{role}.onnx" if precision == "fp32" else f"{role}.{precision}.onnx"


def parse_precisions(precision: str | Sequence[str]) -> tuple[str, ...]:
    """Return the requested precisions besides fp32, in the order of `PRECISIONS`.

    Raises
    ------
    InputError, InputTypeError
        One of them is not a precision.
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
