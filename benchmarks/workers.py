"""Memory of worker processes that segment: resident, and the part that no other process shares.

A segmenter is opened and used in the parent, as a program that starts workers does; two workers then segment frames of
the clip pack with it, each on one thread, and read their memory. Linux only. Example::

    python -m benchmarks.workers
    python -m benchmarks.workers --bundle walker_walk --backend openvino --frames 1000
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Annotated, Any

import typer

import samg_fast
from benchmarks.common import BackendsOption, one_line_errors
from samg_fast.bench.contenders import names
from samg_fast.bench.provenance import heading, provenance
from samg_fast.samples import load_pack

__all__ = ["app"]

app = typer.Typer(add_completion=False)

_WORKERS = 2


def _memory() -> tuple[float, float]:
    """Return this process's resident memory and what it shares with no other, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return kib["Rss"] / 1024, (kib["Private_Dirty"] + kib["Private_Clean"]) / 1024


def _idle(answers: Any) -> None:
    answers.put(_memory())


def _work(segmenter: Any, target: Any, count: int, barrier: Any, answers: Any) -> None:
    frames, _ = load_pack().tasks["walker_walk"].settings["video_hard"]
    for turn in range(count):
        segmenter.segment(frames[turn % len(frames)], target)
    barrier.wait()  # what all workers share is shared while all of them are there
    answers.put(_memory())
    barrier.wait()


@app.command()
def main(
    backend: BackendsOption = "openvino,onnxruntime",
    precision: Annotated[str, typer.Option(help="Precision of all of them.")] = "fp32",
    bundle: Annotated[str, typer.Option(help="A shipped bundle or the folder of one.")] = "tiny",
    frames: Annotated[int, typer.Option(help="Frames that each worker segments.", min=1)] = 20,
) -> None:
    """Print the memory of a worker for every backend and way of starting it."""
    with one_line_errors():
        walker = load_pack().tasks["walker_walk"]
        rows = []
        for name in names(backend):
            with samg_fast.load(bundle, backend=name, precision=precision, threads=1) as segmenter:
                target = segmenter.target_for(walker.reference, walker.reference_mask)
                for method in multiprocessing.get_all_start_methods():
                    context: Any = multiprocessing.get_context(method)
                    answers, barrier = context.Queue(), context.Barrier(_WORKERS)
                    workers = [
                        context.Process(target=_work, args=(segmenter, target, frames, barrier, answers))
                        for _ in range(_WORKERS)
                    ]
                    for worker in workers:
                        worker.start()
                    resident, own = (max(each) for each in zip(*(answers.get() for _ in workers), strict=True))
                    for worker in workers:
                        worker.join()
                    rows.append(f"| {name} | {method} | {resident:.0f} | {own:.0f} |")
        idle: Any = multiprocessing.get_context("spawn")
        answers = idle.Queue()
        alone = idle.Process(target=_idle, args=(answers,))
        alone.start()
        imported, _ = answers.get()
        alone.join()
        what = (
            f"{bundle}, {precision}, one thread a worker, {frames} frames; the larger of {_WORKERS} workers, MiB; a "
            f"spawned process that has imported this program and does nothing: {imported:.0f}"
        )
        typer.echo(heading(provenance(), what))
        typer.echo(
            "\n".join(["| backend | started by | resident | shared with none |", "| --- | --- | ---: | ---: |", *rows])
        )


if __name__ == "__main__":
    app()
