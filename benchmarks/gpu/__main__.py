"""The whole frame on a GPU: every backend against eager PyTorch on the same GPU, everything in one interleaved run.

A frame that is in the GPU's memory is timed from the call until its result is there, by the host's clock: the caller's
stream is idle before and waited for after, so launching counts, and so does learning that it is done. Host time is that
of the same calls until they return. Frames from the host are timed to the masked observation there, which is what the
eager reference can do too; it is compared with by these. Beside the times stand masks: IoU with the reference's in
float32, and with fp32 on the processor. Official bundles come on random weights here, whose masks mean nothing and
magnify every rounding from decode to decode; there the maps, and the decodes of the reference's own prompts, say more.
Example::

    python -m benchmarks.gpu --bundle l0-vits14 --backend tensorrt --precision fp16 --json gpu.json
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import samg_fast
from benchmarks.common import (
    ExportedOption,
    JsonOption,
    SettingOption,
    TasksOption,
    one_line_errors,
    progress_bar,
    save_json,
)
from benchmarks.gpu.measure import identify, likeness, masks, measure, place, resized
from benchmarks.gpu.report import BATCH, EAGER, bars, figures, markdown
from benchmarks.official.agreement import agreement
from benchmarks.official.contenders import Contender, EagerContender, SegmenterContender
from samg_fast.backends import parse_device, probe
from samg_fast.bench.contenders import Shown, choose, names, numbers, open_segmenters
from samg_fast.bench.provenance import heading, provenance
from samg_fast.bundle.zoo import official_models
from samg_fast.devices import driver
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError, InputError, MissingExtraError
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from benchmarks.eager.frame import EagerSamg
    from samg_fast import Segmenter

__all__ = ["app", "compare"]

app = typer.Typer(add_completion=False)

_PACKAGES = ("onnxruntime-gpu", "cuda-core", "cuda-bindings")


def compare(
    segmenters: Mapping[str, Segmenter],
    eager: EagerSamg | None,
    fp32: Segmenter,
    cuda: Cuda,
    shown: Sequence[Shown],
    *,
    batch: int,
    rounds: int,
    warm_up: int,
) -> list[dict[str, Any]]:
    """Measure segmenters on a GPU, and the eager reference.

    Parameters
    ----------
    segmenters : mapping of str to Segmenter
        By name; on one GPU, of one bundle.
    eager : EagerSamg or None
        The reference on the same weights.
    fp32 : Segmenter
        The same bundle at fp32 on the processor.
    cuda : Cuda
        The GPU, as the caller has it.
    shown : sequence of Shown
        The frames of a round.
    batch : int
        Frames in a batch.
    rounds, warm_up : int
        Rounds, and how often each sees every frame before the first.

    Returns
    -------
    list of dict
        Rows for `report.markdown`: the reference, then every segmenter.
    """
    work = [place(cuda, each, batch) for each in shown]
    ours = {name: SegmenterContender(segmenter) for name, segmenter in segmenters.items()}
    contenders: dict[str, Contender] = dict(ours)
    if eager is not None:
        reference = EagerContender(eager)
        contenders = {EAGER: reference, **contenders}
    for contender in contenders.values():
        identify(contender, cuda, work, warm_up)
    with progress_bar("rounds", rounds * len(contenders)) as advance:
        times = measure(contenders, cuda, work, rounds=rounds, advance=advance)
    rows = {
        name: {
            "name": name,
            **figures(each, times.get(EAGER), batch),
            **dict.fromkeys(("iou_eager", "iou_fp32", "cosine", "correlation")),
            "bars": [],
        }
        for name, each in times.items()
    }
    wanted = _masks_on_the_processor(fp32, shown)
    found = {name: masks(contender, cuda, work) for name, contender in ours.items()}
    for name, each in found.items():
        rows[name] |= {"iou_fp32": likeness(each, wanted), "bars": bars(fp32.bundle.name, batch, rows[name])}
    if eager is not None:
        from benchmarks.gpu.reference import exact_frames

        exact = exact_frames(reference, shown)
        rows[EAGER]["iou_fp32"] = likeness([(number, each.mask) for number, each in enumerate(exact)], wanted)
        firsts = [sum(len(each.frames) for each in shown[:task]) for task in range(len(shown))]
        looked = [(each.frames[0], exact[first]) for each, first in zip(shown, firsts, strict=True)]
        for name, contender in ours.items():
            agreed = agreement(looked, contender)
            rows[name] |= {
                "iou_eager": likeness(found[name], [each.mask for each in exact]),
                "cosine": min(*agreed.embedding, *agreed.tokens),
                "correlation": sum(agreed.decoder) / len(agreed.decoder),
            }
    return list(rows.values())


def _masks_on_the_processor(fp32: Segmenter, shown: Sequence[Shown]) -> list[Any]:
    contender = SegmenterContender(fp32)
    for each in shown:
        contender.identify(each.reference, each.reference_mask)
    return [
        fp32.segment(frame, target).mask
        for each, target in zip(shown, contender.targets, strict=True)
        for frame in each.frames
    ]


@app.command()
def main(
    bundle: Annotated[
        str,
        typer.Option(
            help="Official models on reproducible weights, l0-vits14 and so on; or any bundle's folder or name."
        ),
    ] = "l0-vits14",
    exported: ExportedOption = None,
    backend: Annotated[list[str] | None, typer.Option(help="Repeat for several. [all that can run on a GPU]")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Repeat for several. [fp32 and fp16]")] = None,
    batch: Annotated[int, typer.Option(help="Frames in a batch.", min=1)] = BATCH,
    sizes: Annotated[str, typer.Option(help="Sides of the frames in pixels, separated by commas.")] = "84",
    device: Annotated[str, typer.Option(help="The GPU: cuda, cuda:1 and so on.")] = "cuda",
    setting: SettingOption = "video_hard",
    tasks: TasksOption = "",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    warm_up: Annotated[int, typer.Option(help="How often each sees every frame before, untimed.", min=1)] = 2,
    json_file: JsonOption = None,
) -> None:
    """Time whole frames on a GPU, and print Markdown tables."""
    with one_line_errors(), ExitStack() as stack:
        gpu = _gpu(device)
        sides = numbers("sizes", sizes)
        precisions = precision or ["fp32", "fp16"]
        shown = choose(load_pack(), setting, names(tasks), frames)
        kinds = _backends(backend)
        eager, folder = _reference(bundle, exported, precisions, stack, device)
        fp32 = stack.enter_context(samg_fast.load(folder, device="cpu", precision="fp32"))
        fixed = fp32.bundle.manifest.batch
        if fixed not in (None, batch):
            raise InputError(f"batch is {batch}, but bundle {fp32.bundle.name} takes {fixed} at once only")
        segmenters, refused = _open(folder, kinds, precisions, batch, device, stack)
        cuda = Cuda(gpu.index)
        results = {
            side: compare(
                segmenters,
                eager,
                fp32,
                cuda,
                [resized(each, side) for each in shown],
                batch=batch,
                rounds=rounds,
                warm_up=warm_up,
            )
            for side in sides
        }
        about = provenance(_PACKAGES) | {"gpu": _described(gpu), "driver": _driver()}
        count = sum(len(each.frames) for each in shown)
        scope = (
            f"{fp32.bundle.name}{', reproducible weights' if eager is not None else ''}; whole frame, milliseconds; "
            f"{count} {setting} frames of {len(shown)} tasks × {rounds} rounds in turn, after {warm_up} untimed"
        )
        typer.echo(heading(about, scope, f"{about['gpu']}, {about['driver']}; {about['device']}"))
        typer.echo("\n\n".join(f"{side}×{side} pixels\n\n{markdown(rows, batch)}" for side, rows in results.items()))
        for name, reason in refused.items():
            typer.echo(f"\nNot measured: {name}: {reason}")
        if json_file is not None:
            save_json(json_file, {**about, "scope": scope, "batch": batch, "results": results, "refused": refused})


def _gpu(device: str) -> driver.Gpu:
    """Return the GPU that is asked for, or say why there is none."""
    kind, index = parse_device(device)
    if kind != "cuda":
        raise InputError(f"device is {device!r}, expected cuda, or cuda:1 for the second GPU and so on")
    seen = driver.find()
    if seen.reason:
        raise BackendError(f"this benchmark needs a GPU: {seen.reason}")
    if index >= len(seen.found):
        there = ", ".join(f"cuda:{each.index} ({each.name})" for each in seen.found)
        raise BackendError(f"device is {device!r}, but there is only {there}")
    return seen.found[index]


def _backends(wanted: Sequence[str] | None) -> dict[str, str]:
    """Return the backends to measure, and the version of each as far as it is known."""
    known = {status.name: status for status in probe() if status.device == "cuda"}
    if not wanted:
        ready = {name: status.version for name, status in known.items() if status.available}
        if not ready:
            reasons = "; ".join(f"{name}: {status.reason}" for name, status in known.items())
            raise BackendError(f"no backend can run on a GPU here: {reasons}")
        return ready
    return {name: known[name].version if name in known else "" for name in wanted}


def _reference(
    bundle: str, exported: Path | None, precisions: Sequence[str], stack: ExitStack, device: str
) -> tuple[EagerSamg | None, str]:
    """Return the eager reference and its bundle's folder; of other bundles there is no reference."""
    models = official_models(bundle)
    if models is None:
        if exported is not None:
            raise InputError(f"exported is for official models such as l0-vits14, and bundle is {bundle!r}")
        return None, bundle
    try:
        from benchmarks.gpu.reference import check_torch, open_official
    except ImportError as error:
        raise MissingExtraError("comparing with PyTorch", "export") from error
    check_torch()
    eager, folder = open_official(*models, exported, precisions, stack, device)
    return eager, str(folder)


def _open(
    folder: str, backends: Mapping[str, str], precisions: Sequence[str], batch: int, device: str, stack: ExitStack
) -> tuple[dict[str, Segmenter], dict[str, str]]:
    """Open every backend at every precision, as `open_segmenters` does."""
    batches = sorted({1, batch})
    openers = {
        f"{backend} {version}".strip() + f", {precision}": partial(
            samg_fast.load, folder, backend=backend, precision=precision, device=device, batches=batches
        )
        for backend, version in backends.items()
        for precision in precisions
    }
    return open_segmenters(openers, stack)


def _described(gpu: driver.Gpu) -> str:
    return f"{gpu.name} ({gpu.capability}), {gpu.memory / (1 << 30):.0f} GiB"


def _driver() -> str:
    """Return which CUDA the driver supports, and its own version where Linux says it."""
    supported = f"driver for CUDA {'.'.join(map(str, driver.find().driver))}"
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return supported
    number = re.search(r"\b\d{3,}\.\d+(?:\.\d+)*\b", text)
    return f"{supported}, {number[0]}" if number else supported


if __name__ == "__main__":
    app()
