"""The whole SAM-G frame against PyTorch: official models, reproducible weights, everything in one interleaved run.

The contenders are the eager reference (`benchmarks.eager`), the same with `torch.compile`, the exported float32 graphs
on ONNX Runtime, and the exported bundle on OpenVINO in each precision. They take turns on the same frames of the clip
pack, so that a machine that slows down slows all of them, and what is timed is the whole call, from a frame in memory
to its masked observation. Beside the times stands how well each agrees with the reference (`official.agreement`): both
maps and the decoder alone are held to bars, the logits of the whole are shown and held to none. Example::

    python -m benchmarks.compare --sam l0 --dino vits14 --threads 2 --json compare.json

``--tiny`` compares the precisions of the shipped bundle instead, whose masks do mean something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.common import (
    DinoOption,
    ExportedOption,
    JsonOption,
    SamOption,
    SettingOption,
    TasksOption,
    one_line_errors,
    progress_bar,
    save_json,
)
from benchmarks.official.agreement import Agreement, agreement
from samg_fast.bench.contenders import Shown, choose, names, rounds_in_turn
from samg_fast.bench.provenance import heading, provenance
from samg_fast.errors import InputError, MissingExtraError, SamgError
from samg_fast.metrics import percentiles
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from benchmarks.official.contenders import Contender
    from benchmarks.official.models import Official

__all__ = ["KINDS", "Times", "app", "bars", "compare", "markdown", "measure", "refused", "row"]

app = typer.Typer(add_completion=False)

KINDS = ("eager", "compile", "onnxruntime", "fp32", "bf16", "fp16", "int8")
"""What ``--only`` chooses from; the last four are precisions of the bundle on OpenVINO."""

_NAMES = {"eager": "PyTorch, eager", "compile": "PyTorch, torch.compile", "onnxruntime": "ONNX Runtime"}
_OURS = "samg-fast, OpenVINO"
_PAUSE = 0.2  # seconds: thread pools spin for a while after their last work, and would steal the next one's time


@dataclass
class Times:
    """Milliseconds of one contender, one entry per frame.

    Attributes
    ----------
    total : list of float
        Of each whole frame, by the caller's clock.
    stages : dict
        Stage → milliseconds of each frame, as the contender reports them.
    """

    total: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})


def measure(
    contenders: dict[str, Contender],
    shown: Sequence[Shown],
    *,
    rounds: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Let the contenders take turns on the same frames; each must have identified their tasks.

    Parameters
    ----------
    contenders : dict
        Kind → contender.
    shown : sequence of Shown
        The frames of a round, by task.
    rounds : int
        How often each sees all of them; every round starts with another contender.
    advance : callable
        Called after each one's part of a round.

    Returns
    -------
    dict
        Kind → its `Times`.
    """
    times = {kind: Times() for kind in contenders}
    for order in rounds_in_turn(list(contenders), rounds):
        for kind in order:
            sleep(_PAUSE)
            for task, each in enumerate(shown):
                for frame in each.frames:
                    started = perf_counter()
                    stages = contenders[kind].frame(task, frame)
                    times[kind].total.append((perf_counter() - started) * 1e3)
                    for stage in STAGES:
                        times[kind].stages[stage].append(stages[stage])
            advance()
    return times


def row(kind: str, times: Times, agreed: Agreement, eager: Times) -> dict[str, Any]:
    """Reduce what was found of a contender to a row of the table.

    Returns
    -------
    dict
        ``name`` and ``precision``; ``ms_p50``, ``ms_p95`` and ``iqr`` in milliseconds; ``ratio_vs_eager``, how many
        times faster than the reference by their medians; ``agreement``, the lower of ``cosine_embedding`` and
        ``cosine_tokens``, which are of the worst frame; ``logits_correlation``, of the decoder given the reference's
        prompts and embedding, and ``logits_correlation_whole``, given its prompts alone: means over decodes;
        ``stages``, medians; ``frames``, how many calls.
    """
    spread = percentiles(times.total, 25, 50, 75, 95)
    embedding, tokens = min(agreed.embedding), min(agreed.tokens)
    return {
        **_named(kind),
        "ms_p50": spread["p50"],
        "ms_p95": spread["p95"],
        "iqr": [spread["p25"], spread["p75"]],
        "ratio_vs_eager": float(np.median(eager.total)) / spread["p50"],
        "agreement": min(embedding, tokens),
        "cosine_embedding": embedding,
        "cosine_tokens": tokens,
        "logits_correlation": float(np.mean(agreed.decoder)),
        "logits_correlation_whole": float(np.mean(agreed.logits)),
        "stages": {stage: float(np.median(values)) for stage, values in times.stages.items()},
        "frames": len(times.total),
    }


def refused(kind: str, reason: str) -> dict[str, Any]:
    """Return the row of a contender that could not run: no figures, but the ``reason``."""
    return {**_named(kind), **dict.fromkeys(("ms_p50", "ratio_vs_eager", "agreement")), "reason": reason}


def _named(kind: str) -> dict[str, str]:
    return {"name": _NAMES.get(kind, _OURS), "precision": kind if kind not in _NAMES else "fp32"}


def bars(rows: Sequence[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Return the bars that the bundle's rows are held to, as (what, at least, found); none for rows that are not there.

    Times: fp32 2.5 times, the best reduced precision 3.5 times as fast as the reference. Maps: cosine 0.999, in int8
    0.98. Decoder, given the same embedding and prompts: correlation 0.99.
    """
    ours = {each["precision"]: each for each in rows if each["name"] == _OURS and each["ms_p50"]}
    found = []
    if "fp32" in ours:
        found.append(("fp32, times as fast as eager", 2.5, ours["fp32"]["ratio_vs_eager"]))
    reduced = {precision: each["ratio_vs_eager"] for precision, each in ours.items() if precision != "fp32"}
    if reduced:
        best = max(reduced, key=lambda precision: float(reduced[precision]))
        found.append((f"{best}, the fastest reduced precision, times as fast as eager", 3.5, reduced[best]))
    for precision, minimum in (("fp32", 0.999), ("bf16", 0.999), ("fp16", 0.999), ("int8", 0.98)):
        if precision in ours:
            found.append((f"{precision}, cosine of maps", minimum, ours[precision]["agreement"]))
            found.append(
                (f"{precision}, correlation of the decoder's logits", 0.99, ours[precision]["logits_correlation"])
            )
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out as Markdown: times and agreement, the medians of the stages, and the bars."""
    ran = [each for each in rows if each["ms_p50"] is not None]
    lines = [
        "| contender | p50 | IQR | p95 | × eager | cosine, embedding | tokens | correlation, decoder | whole |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    stages = ["", "| median of | " + " | ".join(STAGES) + " |", "| --- |" + " ---: |" * len(STAGES)]
    for each in ran:
        label, (low, high) = f"{each['name']}, {each['precision']}", each["iqr"]
        lines.append(
            f"| {label} | **{each['ms_p50']:.1f}** | {low:.1f}–{high:.1f} | {each['ms_p95']:.1f} | "
            f"**{each['ratio_vs_eager']:.2f}** | {each['cosine_embedding']:.6f} | {each['cosine_tokens']:.6f} | "
            f"{each['logits_correlation']:.5f} | {each['logits_correlation_whole']:.5f} |"
        )
        stages.append(f"| {label} | " + " | ".join(f"{each['stages'][stage]:.1f}" for stage in STAGES) + " |")
    held = ["", "| bar | at least | found | |", "| --- | ---: | ---: | --- |"]
    for what, minimum, value in bars(rows):
        held.append(f"| {what} | {minimum:g} | {value:.4f} | {'met' if value >= minimum else 'missed'} |")
    missing = [f"\nNot run: {each['name']}, {each['precision']}: {each['reason']}" for each in rows if "reason" in each]
    return "\n".join([*lines, *stages, *(held if len(held) > 3 else []), *missing])


def compare(
    official: Official, kinds: Sequence[str], shown: Sequence[Shown], *, bundle: Path | None, rounds: int, warm_up: int
) -> list[dict[str, Any]]:
    """Measure every contender.

    Parameters
    ----------
    official : Official
        The models.
    kinds : sequence of str
        Of `KINDS`; the reference runs in any case, and first.
    shown : sequence of Shown
        The frames of a round. Agreement is measured on the first of each task.
    bundle : Path or None
        Folder of the exported bundle, kept and used again; None exports it into a folder that is removed.
    rounds, warm_up : int
        Rounds, and untimed frames before the first.

    Returns
    -------
    list of dict
        `row` of each contender in the order of `kinds`, or `refused`.

    Raises
    ------
    SamgError
        The bundle cannot be exported.
    """
    kinds = ["eager", *(kind for kind in kinds if kind != "eager")]
    contenders: dict[str, Contender] = {}
    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = official.export(bundle, stack, kinds) if set(kinds) - {"eager", "compile"} else Path()
        for kind in kinds:
            try:
                contenders[kind] = official.open(kind, folder, stack)
                _warm_up(contenders[kind], shown, warm_up)
            except SamgError as error:
                contenders.pop(kind, None)
                rows[kind] = refused(kind, str(error))
        with progress_bar("rounds", rounds * len(contenders)) as advance:
            times = measure(contenders, shown, rounds=rounds, advance=advance)
        looked = [(each.frames[0], official.reference(task, each.frames[0])) for task, each in enumerate(shown)]
        for kind, contender in contenders.items():
            rows[kind] = row(kind, times[kind], agreement(looked, contender), times["eager"])
    return [rows[kind] for kind in kinds]


def _warm_up(contender: Contender, shown: Sequence[Shown], frames: int) -> None:
    for each in shown:
        contender.identify(each.reference, each.reference_mask)
    for index in range(frames):
        contender.frame(index % len(shown), shown[index % len(shown)].reference)


@app.command()
def main(
    sam: SamOption = "l0",
    dino: DinoOption = "vits14",
    bundle: ExportedOption = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Compare the shipped bundle's precisions instead.")] = False,
    only: Annotated[str, typer.Option(help="Contenders, separated by commas. [all]")] = "",
    setting: SettingOption = "video_hard",
    tasks: TasksOption = "",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    warm_up: Annotated[int, typer.Option(help="Untimed frames of each contender.", min=0)] = 2,
    threads: Annotated[int, typer.Option(help="CPU threads of each contender.", min=1)] = 2,
    json_file: JsonOption = None,
) -> None:
    """Compare whole frames with PyTorch's, and print Markdown tables."""
    with one_line_errors():
        kinds = _kinds(names(only))
        shown = choose(load_pack(), setting, names(tasks), frames)
        if tiny:
            from benchmarks.compare_tiny import compare_tiny, markdown_tiny

            rows = compare_tiny(kinds, threads=threads, tasks=names(tasks))
            what, table = f"The shipped bundle on all frames of {tasks or 'the clip pack'}", markdown_tiny(rows)
        else:
            rows = compare(_official(sam, dino, threads), kinds, shown, bundle=bundle, rounds=rounds, warm_up=warm_up)
            what, table = f"{sam} and {dino} on reproducible weights, {_scope(shown, setting, rounds)}", markdown(rows)
        about = provenance()
        typer.echo(heading(about, what, f"{about['device']}, {threads} threads"))
        typer.echo(table)
        if json_file is not None:
            save_json(json_file, {"rows": rows, **about, "threads": threads, "scope": what})


def _scope(shown: Sequence[Shown], setting: str, rounds: int) -> str:
    height, width = shown[0].frames.shape[1:3]
    count = sum(len(each.frames) for each in shown)
    return f"{height}×{width} pixels, milliseconds; {count} {setting} frames × {rounds} rounds in turn"


def _kinds(wanted: Sequence[str]) -> list[str]:
    for kind in wanted:
        if kind not in KINDS:
            raise InputError(f"only takes {', '.join(KINDS)}, not {kind!r}")
    return [kind for kind in KINDS if not wanted or kind in wanted]


def _official(sam: str, dino: str, threads: int) -> Official:
    try:
        from benchmarks.official.models import Official
    except ImportError as error:
        raise MissingExtraError("comparing with PyTorch", "export") from error
    return Official(sam, dino, threads)


if __name__ == "__main__":
    app()
