"""``samg-fast pull``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import DownloadColumn, TransferSpeedColumn

from samg_fast.cli.common import JsonOption, check_json, progress_bar, say, write_json
from samg_fast.errors import InputError


def pull(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Official checkpoints: efficientvit-sam-l0, dinov2-vits14, …")
    ],
    sha256: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="Expect this SHA-256, not the known one; for one checkpoint."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Download official model checkpoints, and verify their SHA-256."""
    from samg_fast.bundle import checkpoints

    check_json(json)
    wanted = list(dict.fromkeys(checkpoints.find(name) for name in names))  # check all names before the first download
    if sha256 is not None and len(wanted) > 1:
        raise InputError(f"--sha256 is the hash of one checkpoint, but there are {len(wanted)}; pull them one by one")
    figures = []
    for checkpoint in wanted:
        path = checkpoints.path_of(checkpoint.name) if sha256 is None else None
        fetched = path is None and not (checkpoints.folder() / checkpoint.file).exists()
        if fetched:
            size = f"{checkpoint.size / 1e6:.0f} MB"
            say(f"{checkpoint.name}: {size} from {checkpoint.url}", json_to=json)
            say(f"  licence {checkpoint.license}: {checkpoint.license_url}", json_to=json)
        if path is None:
            with _bytes_bar(checkpoint.name) as progress:
                path = checkpoints.pull(checkpoint.name, sha256=sha256, progress=progress)
        say(f"{checkpoint.name}: {path}", json_to=json)
        figures.append(
            {
                "name": checkpoint.name,
                "path": str(path),
                "fetched": fetched,
                "sha256": checkpoints.expected_sha256(checkpoint.name),
                "bytes": path.stat().st_size,
                "parameters": checkpoint.parameters,
                "url": checkpoint.url,
                "page": checkpoint.page,
                "license": checkpoint.license,
                "license_url": checkpoint.license_url,
            }
        )
    write_json(json, {"checkpoints": figures})


@contextmanager
def _bytes_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar for a download, as `common.progress` does for steps."""
    with progress_bar(DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda here, total: bar.update(task, completed=here, total=total)
