"""Time of a whole frame and of its stages, on real frames, with the accuracy of the very same calls beside it.

Frames come from the clip pack inside the package. Configurations (bundle × backend × precision × threads) take turns,
round by round, so that a machine that slows down slows all of them. Networks are compiled and warmed up before the
first round. What is timed is the whole call, from a frame in memory to its mask in memory, one frame at a time.
Example::

    python -m benchmarks.latency --backend openvino,onnxruntime --threads 1,2 --json latency.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import (
    BackendsOption,
    JsonOption,
    PrecisionsOption,
    SettingOption,
    TasksOption,
    configurations,
    one_line_errors,
    progress_bar,
    save_json,
)
from samg_fast.bench.contenders import choose, names, numbers
from samg_fast.bench.latency import run
from samg_fast.samples import load_pack

__all__ = ["app"]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle to time; repeat for several. [tiny]")] = None,
    backend: BackendsOption = "auto",
    precision: PrecisionsOption = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas. [the backend's]")] = "",
    pack: Annotated[Path | None, typer.Option(help="Clip pack; by default the one inside the package.")] = None,
    setting: SettingOption = "video_hard",
    tasks: TasksOption = "",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    warm_up: Annotated[int, typer.Option(help="Untimed frames of each configuration.", min=0)] = 10,
    json_file: JsonOption = None,
) -> None:
    """Time whole frames and their stages, and print Markdown tables."""
    with one_line_errors():
        wanted = configurations(bundle, backend, precision, numbers("threads", threads) if threads else [None])
        shown = choose(load_pack(pack), setting, names(tasks), frames)
        report = run(
            wanted, shown, setting, rounds=rounds, warm_up=warm_up, progress=lambda total: progress_bar("rounds", total)
        )
        typer.echo(report.to_markdown())
        if json_file is not None:
            save_json(json_file, report.to_json())


if __name__ == "__main__":
    app()
