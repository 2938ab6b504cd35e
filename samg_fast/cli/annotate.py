"""``samg-fast annotate``."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Annotated, cast

import typer

from samg_fast.cli.common import (
    BackendOption,
    BundleOption,
    DeviceOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_one,
    open_segmenter,
    printable,
    say,
)


def annotate(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="INPUT", show_default=False, help="A picture, a folder of pictures, or a video."),
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the session; one that is there goes on.")
    ] = Path("annotations"),
    env: Annotated[str | None, typer.Option(metavar="TASK", help="Frames of a task instead: needs OpenGL.")] = None,
    setting: Annotated[
        str, typer.Option(help="Of --env: original, color_easy, color_hard, video_easy or video_hard.")
    ] = "original",
    size: Annotated[int, typer.Option(min=32, help="Side of the frames of --env in pixels.")] = 84,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for one that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Show what to cut out by clicks, boxes and a brush, on a page in the browser.

    The page is on this machine's own address alone. What is clicked on is looked for in all other frames at once;
    where it is not found well, click there too: that is a second reference. Everything that is done is kept in
    DIR/annotations.json at once; Save writes NAME.safetensors for each object, which every command takes, with the
    references and their masks in DIR/NAME. Ctrl-C ends it.
    """
    import webbrowser

    from samg_fast.annotate import PageServer, Session, from_source, from_task

    check_one(source, "INPUT", env, "--env")
    frames = from_source(cast(Path, source)) if env is None else from_task(env, setting, size)
    with (
        open_segmenter(bundle, backend, precision, device, threads) as segmenter,
        closing(Session(out, frames, segmenter)) as session,
    ):
        server = PageServer(session, port)
        say(f"{server.url}\nAnnotate {len(frames)} frames there; Ctrl-C ends it.", json_to=None)
        serving = threading.Thread(target=server.run, daemon=True)
        serving.start()
        if browser and not webbrowser.open(server.url):
            typer.echo(printable("samg-fast: no browser can be opened: open the address above"), err=True)
        try:
            while serving.is_alive():
                serving.join(0.2)
        except KeyboardInterrupt:
            server.stop()
            serving.join(5)
    say(f"kept in {out}", json_to=None)
