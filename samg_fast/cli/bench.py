"""``samg-fast bench``."""

from __future__ import annotations

from itertools import product
from typing import Annotated

import typer

from samg_fast.cli.common import JsonOption, check_json, progress, say, write_json


def bench(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BUNDLE]…", show_default=False, help="Names or folders of bundles; tiny by default."),
    ] = None,
    backend: Annotated[str, typer.Option(help="Backends, separated by commas.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precisions, separated by commas.")] = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas.", show_default=False)] = "",
    tasks: Annotated[
        str, typer.Option(help="Tasks of the clips, separated by commas; all of them by default.", show_default=False)
    ] = "",
    setting: Annotated[str, typer.Option(help="original, video_easy or video_hard.")] = "video_hard",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    json: JsonOption = None,
) -> None:
    """Time whole frames of the clips that ship, and print the milliseconds of bundles side by side.

    Every combination of bundle, backend, precision and threads takes its turn in every round, so that a machine that
    slows down slows all of them. IoU with the clips' ground truth stands beside the times. A fitted bundle is accurate
    on its own task alone: name it with --tasks.
    """
    from samg_fast.bench.contenders import Configuration, choose, names, numbers
    from samg_fast.bench.latency import run
    from samg_fast.samples import load_pack

    check_json(json)
    counts = numbers("threads", threads) if threads else [None]
    wanted = [Configuration(*each) for each in product(bundles or ["tiny"], names(backend), names(precision), counts)]
    shown = choose(load_pack(), setting, names(tasks), frames)
    report = run(wanted, shown, setting, rounds=rounds, warm_up=10, progress=lambda total: progress("rounds", total))
    say(report.to_markdown(), json_to=json)
    write_json(json, report.to_json())
