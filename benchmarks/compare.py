"""The whole SAM-G frame against PyTorch: official models, reproducible weights, everything in one interleaved run.

The contenders are the eager reference (`benchmarks.eager`), the same with `torch.compile`, the exported float32 graphs
on ONNX Runtime, and the exported bundle on OpenVINO in each precision. They take turns on the same frames of the clip
pack, so that a machine that slows down slows all of them, and what is timed is the whole call, from a frame in memory
to its masked observation. Beside the times stands how well they agree with the reference. The weights are random, so
masks say nothing; what is compared are both maps, and the logits under the reference's own prompts: of the decoder
given the reference's embedding, and of the whole. The whole is told and held to no bar, because random weights make of
a small error in the embedding a large one in the logits. Example::

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
    SamOption,
    names,
    one_line_errors,
    progress_bar,
    provenance,
    save_json,
)
from benchmarks.latency import Shown, choose
from samg_fast.errors import InputError, MissingExtraError, SamgError
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from benchmarks.contenders import Contender
    from benchmarks.eager import EagerFrame
    from benchmarks.official import Official
    from samg_fast.checks import Floats

__all__ = ["KINDS", "Result", "agreement", "app", "bars", "compare", "cosine", "markdown", "measure", "refused", "row"]

app = typer.Typer(add_completion=False)

KINDS = ("eager", "compile", "onnxruntime", "fp32", "bf16", "fp16", "int8")
"""What ``--only`` chooses from; the last four are precisions of the bundle on OpenVINO."""

_NAMES = {"eager": "PyTorch, eager", "compile": "PyTorch, torch.compile", "onnxruntime": "ONNX Runtime"}
_OURS = "samg-fast, OpenVINO"
_PAUSE = 0.2  # seconds: thread pools spin for a while after their last work, and would steal the next one's time


@dataclass
class Result:
    """What was found of one contender.

    Attributes
    ----------
    ms : list of float
        Of each whole frame.
    stages : dict
        Stage → milliseconds of each frame.
    embedding, tokens : list of float
        Cosine with the reference's map, of each frame looked at.
    logits : list of float
        Pearson correlation with the reference's logits under its prompts, of each decode of each frame looked at.
    decoder : list of float
        The same where the decoder also gets the reference's embedding.
    """

    ms: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    embedding: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    decoder: list[float] = field(default_factory=list)


def measure(
    contenders: dict[str, Contender],
    shown: Sequence[Shown],
    *,
    rounds: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Result]:
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
        Kind → its `Result`, times only.
    """
    results = {kind: Result() for kind in contenders}
    order = list(contenders)
    for turn in range(rounds):
        start = turn % len(order)
        for kind in order[start:] + order[:start]:
            sleep(_PAUSE)
            for task, each in enumerate(shown):
                for frame in each.frames:
                    started = perf_counter()
                    stages = contenders[kind].frame(task, frame)
                    results[kind].ms.append((perf_counter() - started) * 1e3)
                    for stage in STAGES:
                        results[kind].stages[stage].append(stages[stage])
            advance()
    return results


def agreement(reference: Sequence[tuple[Any, EagerFrame]], contender: Contender, result: Result) -> None:
    """Compare a contender's maps, and its logits under the reference's prompts, and add that to its result.

    Parameters
    ----------
    reference : sequence of (frame, EagerFrame)
        Frames (H, W, 3) uint8, and what the reference made of them.
    contender : Contender
    result : Result
        Gets an entry per frame, or per decode.
    """
    for frame, wanted in reference:
        embedding = wanted.embedding.numpy()
        seen = contender.look(frame, wanted.prompts, embedding)
        result.embedding.append(cosine(seen.embedding, embedding))
        result.tokens.append(cosine(seen.tokens, wanted.tokens.numpy()))
        for own, given, decode in zip(seen.logits, seen.given, wanted.decodes, strict=True):
            result.logits.append(_correlation(own, decode.low_res))
            result.decoder.append(_correlation(given, decode.low_res))


def cosine(one: Floats, other: Floats) -> float:
    """Return the cosine between two maps, each taken as one vector."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def row(kind: str, result: Result, eager: Result) -> dict[str, Any]:
    """Reduce a result to a row of the table.

    Returns
    -------
    dict
        ``name`` and ``precision``; ``ms_p50``, ``ms_p95`` and ``iqr`` in milliseconds; ``ratio_vs_eager``, how many
        times faster than the reference by their medians; ``agreement``, the lower of ``cosine_embedding`` and
        ``cosine_tokens``, which are of the worst frame; ``logits_correlation``, of the decoder given the reference's
        prompts and embedding, and ``logits_correlation_whole``, given its prompts alone: means over decodes;
        ``stages``, medians; ``frames``, how many calls.
    """
    p25, p50, p75, p95 = np.percentile(result.ms, (25, 50, 75, 95)).tolist()
    embedding, tokens = min(result.embedding), min(result.tokens)
    return {
        **_named(kind),
        "ms_p50": p50,
        "ms_p95": p95,
        "iqr": [p25, p75],
        "ratio_vs_eager": float(np.median(eager.ms)) / p50,
        "agreement": min(embedding, tokens),
        "cosine_embedding": embedding,
        "cosine_tokens": tokens,
        "logits_correlation": float(np.mean(result.decoder)),
        "logits_correlation_whole": float(np.mean(result.logits)),
        "stages": {stage: float(np.median(values)) for stage, values in result.stages.items()},
        "frames": len(result.ms),
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
    for precision, least in (("fp32", 0.999), ("bf16", 0.999), ("fp16", 0.999), ("int8", 0.98)):
        if precision in ours:
            found.append((f"{precision}, cosine of maps", least, ours[precision]["agreement"]))
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
    told = ["", "| bar | at least | found | |", "| --- | ---: | ---: | --- |"]
    for what, least, value in bars(rows):
        told.append(f"| {what} | {least:g} | {value:.4f} | {'met' if value >= least else 'missed'} |")
    missing = [f"\nNot run: {each['name']}, {each['precision']}: {each['reason']}" for each in rows if "reason" in each]
    return "\n".join([*lines, *stages, *(told if len(told) > 3 else []), *missing])


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
        with progress_bar("rounds", rounds * len(contenders)) as bar:
            results = measure(contenders, shown, rounds=rounds, advance=lambda: bar.advance(bar.task_ids[0]))
        looked = [(each.frames[0], official.reference(task, each.frames[0])) for task, each in enumerate(shown)]
        for kind, contender in contenders.items():
            agreement(looked, contender, results[kind])
            rows[kind] = row(kind, results[kind], results["eager"])
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
    setting: Annotated[str, typer.Option(help="Setting of the frames.")] = "video_hard",
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas. [all of the pack]")] = "",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    warm_up: Annotated[int, typer.Option(help="Untimed frames of each contender.", min=0)] = 2,
    threads: Annotated[int, typer.Option(help="CPU threads of each contender.", min=1)] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Compare whole frames with PyTorch's, and print Markdown tables."""
    with one_line_errors():
        kinds = _kinds(names(only))
        shown = choose(load_pack(), setting, names(tasks), frames)
        if tiny:
            from benchmarks.compare_tiny import compare_tiny, markdown_tiny

            rows = compare_tiny(kinds, threads=threads)
            what, table = "The shipped bundle on all frames of the clip pack", markdown_tiny(rows)
        else:
            rows = compare(_official(sam, dino, threads), kinds, shown, bundle=bundle, rounds=rounds, warm_up=warm_up)
            what, table = f"{sam} and {dino} on reproducible weights, {_scope(shown, setting, rounds)}", markdown(rows)
        about = provenance()
        typer.echo(f"`{about['command']}`\n\n{what}")
        versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
        typer.echo(f"{about['device']}, {threads} threads; commit {about['commit'] or 'unknown'}; {versions}\n")
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
        from benchmarks.official import Official
    except ImportError as error:
        raise MissingExtraError("comparing with PyTorch", "export") from error
    return Official(sam, dino, threads)


if __name__ == "__main__":
    app()
