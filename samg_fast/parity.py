"""Compare networks with a reference runtime, usually PyTorch: each output, and the masks of whole SAM-G frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.backends import Network
from samg_fast.bundle import Bundle, Role
from samg_fast.checks import Floats, Frame, Mask
from samg_fast.metrics import iou
from samg_fast.results import Segmentation, Trace
from samg_fast.samples import load_pack
from samg_fast.segmenter import Segmenter

__all__ = [
    "MARGIN",
    "THRESHOLDS",
    "FrameParity",
    "OutputParity",
    "Recorder",
    "Run",
    "Sample",
    "Threshold",
    "compare_frames",
    "compare_outputs",
    "record",
    "sample_frames",
    "trace_frames",
]

Run = tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]
"""Inputs and outputs of one call of a network, by name."""

MARGIN = 1e-3
"""If the two highest values of a similarity map differ by less than this, rounding may select another point."""


@dataclass(frozen=True)
class Threshold:
    """The bounds that an output must keep.

    Parameters
    ----------
    error : float
        Maximum difference, relative to the output's range.
    cosine, correlation : float
        Minimum cosine similarity of all values taken as one vector, and their minimum Pearson correlation.
    """

    error: float = np.inf
    cosine: float = -1.0
    correlation: float = -1.0


_HALF = Threshold(cosine=0.999)

THRESHOLDS: dict[str, dict[Role, Threshold]] = {
    # Float32 sums in another order. The decoder is a chain of softmaxes, which are steep for large logits: it amplifies
    # the rounding errors of its first sums by a factor of several hundred.
    "fp32": {
        "encoder": Threshold(1e-4),
        "features": Threshold(1e-4),
        "decoder": Threshold(5e-3, 0.9999, 0.9999),
        "network": Threshold(1e-4),
    },
    "fp16": {"encoder": _HALF, "features": _HALF, "decoder": Threshold(correlation=0.99), "network": _HALF},
    "bf16": {"encoder": _HALF, "features": _HALF, "decoder": Threshold(correlation=0.99), "network": _HALF},
    "int8": {
        "encoder": Threshold(cosine=0.98),
        "features": Threshold(cosine=0.98),
        "decoder": Threshold(),
        "network": Threshold(cosine=0.98),
    },
}
"""The bounds for each network at each precision, compared with PyTorch in float32."""


@dataclass(frozen=True)
class OutputParity:
    """How one output of a network compares with PyTorch's, over all runs.

    Parameters
    ----------
    precision, runtime : str
        The precision, and the runtime that computed the output.
    role : str
        The network.
    output : str
        The name of the output.
    largest, mean : float
        Maximum and mean difference, relative to the range of PyTorch's output.
    cosine, correlation : float
        Minimum over all runs; NaN if a value is not finite.
    holds : bool
        Whether the output is within `THRESHOLDS`.
    """

    precision: str
    runtime: str
    role: Role
    output: str
    largest: float
    mean: float
    cosine: float
    correlation: float
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class FrameParity:
    """How whole SAM-G frames compare with PyTorch's.

    Parameters
    ----------
    precision, runtime : str
        The precision, and the runtime that computed the frames.
    frames : int
        Number of frames.
    points, moved : int
        Number of points of the first decodes whose value exceeded the second best by more than `MARGIN`, and how many
        of them are at another position.
    first_iou : float
        Minimum IoU of the first decode's mask with PyTorch's, over frames whose points are the same; 1 if there are
        none.
    lowest_iou, mean_iou : float
        Minimum and mean IoU of the last decode's masks. Each decode takes the previous one's output and amplifies its
        rounding errors, so untrained weights may give quite different masks. Each decode by itself is still compared
        with PyTorch on the same input.
    """

    precision: str
    runtime: str
    frames: int
    points: int
    moved: int
    first_iou: float
    lowest_iou: float
    mean_iou: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """A reference image (H, W, 3) uint8, its mask (H, W) bool, and frames of the same task."""

    reference: Frame
    mask: Mask
    frames: tuple[Frame, ...]


class Recorder:
    """A network that records every call of another network.

    Parameters
    ----------
    network : Network
        The network that computes the outputs.

    Attributes
    ----------
    runs : list of Run
        Every call so far, in order; the arrays are copies.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self.runs: list[Run] = []

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the network; see `samg_fast.backends.Network`."""
        outputs = self._network(**inputs)
        self.runs.append(
            ({name: np.array(x) for name, x in inputs.items()}, {name: np.array(x) for name, x in outputs.items()})
        )
        return outputs


@dataclass
class _NamedRuntime:
    """A runtime of which only the name is known."""

    name: str
    version: str = ""
    precision: str = "fp32"
    threads: int | None = None


def sample_frames(tasks: int = 2, per_setting: int = 1) -> list[Sample]:
    """Return samples of some tasks of the shipped clips: clean frames, and frames with moving backgrounds."""
    pack = load_pack()
    samples = []
    for task in list(pack.tasks.values())[:: max(1, len(pack.tasks) // tasks)][:tasks]:
        frames = [
            frames[index]
            for frames, _ in (task.settings["original"], task.settings["video_hard"])
            for index in np.linspace(0, len(frames) - 1, per_setting + 1).astype(int)[1:]
        ]
        samples.append(Sample(task.reference, task.reference_mask, tuple(frames)))
    return samples


def trace_frames(segmenter: Segmenter, samples: Iterable[Sample]) -> list[Segmentation]:
    """Segment every frame, with traces; each target has one part, at a point in the middle of the reference mask.

    A fitted bundle needs no target, and has no traces.
    """
    found = []
    for sample in samples:
        if not segmenter.needs_target:
            found += [segmenter.segment(frame) for frame in sample.frames]
            continue
        rows, columns = np.nonzero(sample.mask)
        middle = len(rows) // 2
        target = segmenter.identify(sample.reference, sample.mask, points=[(columns[middle], rows[middle])])
        found += [segmenter.segment(frame, target, trace=True) for frame in sample.frames]
    return found


def record(
    bundle: Bundle, name: str, networks: Mapping[Role, Network], samples: Sequence[Sample]
) -> tuple[list[Segmentation], dict[Role, list[Run]]]:
    """Segment samples with other networks than a bundle's files, and record the inputs and outputs of every call.

    Parameters
    ----------
    bundle : Bundle
        Supplies the manifest and the names of the files; the files are not opened.
    name : str
        Name of the runtime that runs the networks.
    networks : mapping of Role to Network
        Without ``"features"`` if encoder and features are one graph.
    samples : sequence of Sample

    Returns
    -------
    wanted : list of Segmentation
        With traces.
    runs : dict of Role to list of Run
    """
    recorders = {role: Recorder(network) for role, network in networks.items()}
    with Segmenter(bundle, _NamedRuntime(name), recorders) as segmenter:
        for recorder in recorders.values():
            recorder.runs.clear()  # the segmenter has warmed up on a black image
        wanted = trace_frames(segmenter, samples)
    return wanted, {role: recorder.runs for role, recorder in recorders.items()}


def compare_outputs(
    network: Network, runs: Sequence[Run], *, role: Role, precision: str, runtime: str
) -> list[OutputParity]:
    """Run a network on the inputs of PyTorch's runs, and compare the outputs.

    Parameters
    ----------
    network : Network
    runs : sequence of Run
        Inputs and outputs of PyTorch's network.
    role, precision, runtime : str
        Describe `network`; role and precision select the threshold.
    """
    threshold = THRESHOLDS[precision][role]
    measured: dict[str, list[tuple[float, float, float, float]]] = {}
    for inputs, wanted in runs:
        found = network(**inputs)
        for name, expected in wanted.items():
            measured.setdefault(name, []).append(_differences(found[name], expected))
    report = []
    for name, rows in measured.items():
        table = np.array(rows)
        largest, mean = float(table[:, 0].max()), float(table[:, 1].mean())
        cosine, correlation = float(table[:, 2].min()), float(table[:, 3].min())
        # Four numbers are too few to correlate: for predicted IoUs only the error is checked
        small = wanted[name].size < 100
        near = largest <= threshold.error
        alike = small or (cosine >= threshold.cosine and correlation >= threshold.correlation)
        report.append(
            OutputParity(precision, runtime, role, name, largest, mean, cosine, correlation, bool(near and alike))
        )
    return report


def compare_frames(
    found: Sequence[Segmentation], wanted: Sequence[Segmentation], *, precision: str, runtime: str
) -> FrameParity:
    """Compare frames with PyTorch's; both have traces and are in the same order."""
    points = moved = 0
    ious, first_ious = [], [1.0]
    for mine, other in zip(found, wanted, strict=True):
        first, theirs = _trace(mine).decodes[0], _trace(other).decodes[0]
        clear = _clear_points(_trace(other))
        elsewhere = (first.points != theirs.points).any(axis=1)
        points += int(clear.sum())
        moved += int((clear & elsewhere).sum())
        ious.append(iou(mine.mask, other.mask))
        if not elsewhere.any():
            first_ious.append(iou(first.mask, theirs.mask))
    return FrameParity(precision, runtime, len(ious), points, moved, min(first_ious), min(ious), float(np.mean(ious)))


def _clear_points(trace: Trace) -> Mask:
    """Return which points of the first decode won by more than `MARGIN`: target+, target-, then the parts."""
    target = trace.similarity[0]
    maps = [target, -target[:-1, :-1], *trace.similarity[1:]]
    return np.array([np.subtract(*np.partition(each.ravel(), -2)[:-3:-1]) > MARGIN for each in maps])


def _differences(found: Floats, wanted: Floats) -> tuple[float, float, float, float]:
    """Return the maximum and mean difference relative to the range, the cosine and the correlation.

    A single number, such as a fitted network's score, has no range and no correlation: its size is taken.
    """
    a, b = (np.asarray(x, np.float64).ravel() for x in (found, wanted))
    if not np.isfinite(a).all():
        return np.inf, np.inf, np.nan, np.nan
    difference = np.abs(a - b) / (np.ptp(b) or np.abs(b).max() or 1.0)
    correlation = np.nan if np.ptp(b) == 0 else _cosine(a - a.mean(), b - b.mean())
    return float(difference.max()), float(difference.mean()), _cosine(a, b), correlation


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _trace(segmentation: Segmentation) -> Trace:
    assert segmentation.trace is not None
    return segmentation.trace
