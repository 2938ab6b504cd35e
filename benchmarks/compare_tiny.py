"""The precisions of the shipped bundle against each other, on frames whose truth is known: its masks mean something."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import Configuration, progress_bar
from samg_fast.errors import SamgError
from samg_fast.metrics import iou
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from samg_fast import Segmenter
    from samg_fast.checks import Mask
    from samg_fast.samples import PackTask

__all__ = ["ACCURACY_LOST", "MASK_IOU", "compare_tiny", "markdown_tiny"]

MASK_IOU = 0.97
"""What the masks of a reduced precision must share with fp32's, in the mean."""

ACCURACY_LOST = 0.01
"""How much of fp32's mean IoU with the truth a reduced precision may lose."""

_PRECISIONS = ("fp32", "bf16", "fp16", "int8")


def compare_tiny(
    kinds: Sequence[str], *, threads: int, backend: str = "openvino", tasks: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Segment frames of the clip pack in each precision, frame by frame in turn.

    Parameters
    ----------
    kinds : sequence of str
        Precisions to compare; fp32 runs in any case. Others are left out.
    threads : int
        CPU threads of each network.
    backend : str
        What runs. fp16 and int8 files are made of the shipped ones for the purpose.
    tasks : sequence of str
        Tasks of the pack; all where empty.

    Returns
    -------
    list of dict
        ``name``, ``precision``, ``ms_p50``, ``ratio_vs_eager`` (None: the bundle has no official counterpart),
        ``ratio_vs_fp32``, ``agreement`` (mean IoU with fp32's masks), ``agreement_worst``, ``accuracy`` (mean IoU with
        the truth), ``accuracy_lost`` and ``frames``; or the ``reason`` why it did not run.

    Raises
    ------
    SamgError
        fp32 itself cannot run, or a precision's files do not hold to fp32.
    """
    from samg_fast.export import add_precisions

    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory())) / "tiny"
        made = [each for each in ("fp16", "int8") if each in kinds]
        add_precisions("tiny", folder, precision=made or "fp32")
        opened: dict[str, Segmenter] = {}
        for precision in [each for each in _PRECISIONS if each in {"fp32", *kinds}]:
            try:
                configuration = Configuration(str(folder), backend, precision, threads)
                opened[precision] = stack.enter_context(configuration.open())
            except SamgError as error:
                if precision == "fp32":
                    raise
                figures = dict.fromkeys(("ms_p50", "ratio_vs_eager", "agreement"))
                rows[precision] = {"name": "tiny", "precision": precision, **figures, "reason": str(error)}
        found: dict[str, list[tuple[float, float, float]]] = {precision: [] for precision in opened}
        pack = load_pack()
        with progress_bar("tasks", len(tasks or pack.tasks)) as advance:
            for task in tasks or pack.tasks:
                _segment(pack.tasks[task], opened, found)
                advance()
    base = np.array(found["fp32"]).T
    for precision, each in found.items():
        ms, shared, truth = np.array(each).T
        rows[precision] = {
            "name": "tiny",
            "precision": precision,
            "ms_p50": float(np.median(ms)),
            "ratio_vs_eager": None,
            "ratio_vs_fp32": float(np.median(base[0]) / np.median(ms)),
            "agreement": float(shared.mean()),
            "agreement_worst": float(shared.min()),
            "accuracy": float(truth.mean()),
            "accuracy_lost": float(base[2].mean() - truth.mean()),
            "frames": len(each),
        }
    return [rows[precision] for precision in _PRECISIONS if precision in rows]


def _segment(task: PackTask, opened: dict[str, Segmenter], found: dict[str, list[tuple[float, float, float]]]) -> None:
    """Add the milliseconds, the IoU with fp32's mask and that with the truth, of every frame of a task."""
    targets = {key: each.target_for(task.reference, task.reference_mask) for key, each in opened.items()}
    for key, segmenter in opened.items():
        segmenter.segment(task.reference, targets[key])
    for frames, truths in task.settings.values():
        for frame, truth in zip(frames, truths, strict=True):
            wanted: Mask | None = None
            for key, segmenter in opened.items():  # fp32 is the first
                started = perf_counter()
                mask = segmenter.segment(frame, targets[key]).mask
                ms = (perf_counter() - started) * 1e3
                wanted = mask if wanted is None else wanted
                found[key].append((ms, iou(mask, wanted), iou(mask, truth)))


def markdown_tiny(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the rows of `compare_tiny` out as a Markdown table, with the bars."""
    lines = [
        "| precision | p50 | × fp32 | mask IoU with fp32 | worst | accuracy | lost | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in rows:
        if "reason" in each:
            continue
        met = each["agreement"] >= MASK_IOU and each["accuracy_lost"] <= ACCURACY_LOST
        lines.append(
            f"| {each['name']}, {each['precision']} | **{each['ms_p50']:.2f}** | {each['ratio_vs_fp32']:.2f} | "
            f"{each['agreement']:.4f} | {each['agreement_worst']:.3f} | {each['accuracy']:.4f} | "
            f"{each['accuracy_lost']:+.4f} | {'met' if met else 'missed'} |"
        )
    lines.append(f"\nBars: mask IoU at least {MASK_IOU:g}, accuracy lost at most {ACCURACY_LOST:g}.")
    lines += [f"\nNot run: {each['name']}, {each['precision']}: {each['reason']}" for each in rows if "reason" in each]
    return "\n".join(lines)
