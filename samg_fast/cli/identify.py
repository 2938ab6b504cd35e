"""``samg-fast identify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samg_fast.cli.common import (
    Backend,
    BackendOption,
    BundleOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
    open_segmenter,
    say,
    write_json,
)


def _point(text: str) -> tuple[float, float]:
    """Read "x,y"."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        words = f"{text!r} is not two numbers with a comma between"
        raise typer.BadParameter(words, param_hint="--point") from None
    return x, y


def identify(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of the target, without clutter.")],
    mask: Annotated[
        Path, typer.Argument(metavar="MASK", help="A picture of the same size: white where the target is.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The target to write: NAME.safetensors.")],
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="A point on a part of it, in pixels; may be repeated."),
    ] = None,
    part: Annotated[
        list[Path] | None, typer.Option(metavar="MASK", help="The mask of a part of it; may be repeated.")
    ] = None,
    masked_picture: Annotated[
        bool,
        typer.Option(
            "--masked-picture",
            help="MASK and every --part show IMAGE, black but for the target; read as SAM-G's own code does.",
        ),
    ] = False,
    bundle: BundleOption = "tiny",
    backend: BackendOption = Backend.auto,
    precision: PrecisionOption = Precision.auto,
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Learn a target from one picture and its mask.

    The target goes into a small file that `samg-fast segment` takes. To show what it is worth, the picture itself is
    segmented with it and compared with the mask.
    """
    import numpy as np

    from samg_fast.demo import iou
    from samg_fast.media import check_writable, read_image, read_mask

    points, parts = [_point(each) for each in point or ()], part or []
    if any(path.exists() and out.exists() and path.samefile(out) for path in (image, mask, *parts)):
        raise typer.BadParameter("would overwrite a picture it is made of", param_hint="--out")
    check_writable(out)
    check_json(json)
    picture = read_image(image)
    with open_segmenter(bundle, backend, precision, threads) as segmenter:
        if masked_picture:
            masked = read_image(mask)
            truth = np.any(masked, axis=2)
            part_pictures = [read_image(each) for each in parts]
            target = segmenter.identify_masked_picture(picture, masked, points, part_pictures)
        else:
            truth = read_mask(mask)
            target = segmenter.identify(picture, truth, points, [read_mask(each) for each in parts])
        agreement = iou(segmenter.segment(picture, target).mask, truth)
    target.save(out)
    count = len(points) + len(parts)
    say(f"{out}: {count} part{'' if count == 1 else 's'}, IoU on its own picture {agreement:.2f}", json_to=json)
    write_json(json, {"target": str(out), "bundle": target.bundle, "parts": count, "iou": round(agreement, 4)})
