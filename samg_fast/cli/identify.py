"""``samg-fast identify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from samg_fast.cli.common import (
    BackendOption,
    BundleOption,
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
    open_segmenter,
    printable,
    say,
    write_json,
)

POOR = 0.5  # IoU of a target with its own mask, below which less than half of what it marks and misses is right


def _numbers(text: str, count: int, option: str) -> list[float]:
    """Read so many numbers, "x,y" or "x0,y0,x1,y1"."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        words = f"{text!r} is not {'two' if count == 2 else 'four'} numbers with a comma between"
        raise typer.BadParameter(words, param_hint=option)
    return numbers


def _pair(text: str) -> tuple[Path, Path]:
    """Read "IMAGE,MASK"."""
    image, _, mask = text.partition(",")
    if not image or not mask or "," in mask:
        words = f"{text!r} is not two files with a comma between, and none in their names"
        raise typer.BadParameter(words, param_hint="--also")
    return Path(image), Path(mask)


def identify(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of the target, without clutter.")],
    mask: Annotated[
        Path | None,
        typer.Argument(
            metavar="MASK",
            show_default=False,
            help="A picture of the same size: white where the target is. Without one, --click or --box.",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The target to write: NAME.safetensors.")],
    click: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="A click on the target, in place of MASK; may be repeated."),
    ] = None,
    away: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="X,Y", help="A click on what does not belong to it; may be repeated."),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="A box around the target, in place of MASK.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="IMAGE,MASK", help="Another picture of the target and its mask; may be repeated."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="A point on a part of it, in pixels of IMAGE; may be repeated."),
    ] = None,
    part: Annotated[
        list[Path] | None, typer.Option(metavar="MASK", help="The mask of a part of it in IMAGE; may be repeated.")
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="The label in MASK and all other masks that is the target; by default all but 0."
        ),
    ] = None,
    masked_picture: Annotated[
        bool,
        typer.Option(
            "--masked-picture",
            help="MASK and every --part show IMAGE, black but for the target; read as SAM-G's own code does.",
        ),
    ] = False,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Learn a target from one picture and its mask, or from several; or from clicks.

    With --click, --not and --box the mask is made of them, and written beside the target as NAME.mask.png to look at.
    The target goes into a small file that `samg-fast segment` takes. To show what it is worth, every picture is
    segmented with it and compared with its mask. A mask is white where the target is; what else a mask file may be, and
    what is refused, is in docs/media.md.
    """
    import numpy as np

    from samg_fast.files import check_writable
    from samg_fast.media import read_image, read_mask, read_masked_image, write_image
    from samg_fast.metrics import iou

    points, parts = [_numbers(each, 2, "--point") for each in point or ()], part or []
    clicks = [_numbers(each, 2, "--click") for each in click or ()]
    others = [_numbers(each, 2, "--not") for each in away or ()]
    corners = None if box is None else _numbers(box, 4, "--box")
    clicked = bool(clicks or corners)
    if (mask is not None) == clicked or (others and not clicked):
        raise typer.BadParameter("must be given, or else --click or --box, and not both", param_hint="MASK")
    images = (image, *(_pair(each)[0] for each in also or ()))
    masks = (*(() if mask is None else (mask,)), *(_pair(each)[1] for each in also or ()))
    if masked_picture and mask is None:
        raise typer.BadParameter("reads MASK, which is not given", param_hint="--masked-picture")
    if masked_picture and also:
        raise typer.BadParameter("reads one picture only, so not with --also", param_hint="--masked-picture")
    if masked_picture and label is not None:
        raise typer.BadParameter("reads colours, so not with --label", param_hint="--masked-picture")
    if any(path.exists() and out.exists() and path.samefile(out) for path in (*images, *masks, *parts)):
        raise typer.BadParameter("would overwrite a picture it is made of", param_hint="--out")
    check_writable(out)
    drawn = out.with_suffix(".mask.png")
    check_json(json)
    pictures = [read_image(each) for each in images]
    with open_segmenter(bundle, backend, precision, device, threads) as segmenter:
        if masked_picture:
            masked = read_masked_image(masks[0])
            truths = [np.any(masked, axis=2)]
            part_pictures = [read_masked_image(each) for each in parts]
            target = segmenter.identify_masked_picture(pictures[0], masked, points, part_pictures)
        else:
            truths = [read_mask(each, label=label) for each in masks]
            if clicked:
                labels = [1] * len(clicks) + [0] * len(others)
                truths = [segmenter.propose(pictures[0], clicks + others, labels, corners).found, *truths]
                write_image(drawn, truths[0])
            part_masks = [read_mask(each, label=label) for each in parts]
            if also:
                nothing = [()] * len(also)
                target = segmenter.identify(pictures, truths, [points, *nothing], [part_masks, *nothing])
            else:
                target = segmenter.identify(pictures[0], truths[0], points, part_masks)
        found = [segmenter.segment(picture, target) for picture in pictures]
    ious = [iou(each.mask, truth) for each, truth in zip(found, truths, strict=True)]
    target.save(out)
    count = len(points) + len(parts)
    own = "its own picture" if len(ious) == 1 else f"its own {len(ious)} pictures"
    agreement = " ".join(f"{each:.2f}" for each in ious)
    say(f"{out}: {count} part{'' if count == 1 else 's'}, IoU on {own} {agreement}", json_to=json)
    _warn(images, ious, [each.present for each in found])
    if clicked:
        say(f"{drawn}: the mask that was made of the clicks", json_to=json)
    figures = {
        "target": str(out),
        "mask": str(drawn) if clicked else str(mask),
        "bundle": target.bundle,
        "parts": count,
        "iou": round(sum(ious) / len(ious), 4),
        "pictures": [{"image": str(path), "iou": round(each, 4)} for path, each in zip(images, ious, strict=True)],
    }
    write_json(json, figures)


def _warn(images: Sequence[Path], ious: Sequence[float], present: Sequence[bool]) -> None:
    """Say on stderr of which pictures the target does not find itself."""
    poor = [
        f"{path} (IoU {each:.2f}{'' if there else ', taken for absent'})"
        for path, each, there in zip(images, ious, present, strict=True)
        if each < POOR or not there
    ]
    if poor:
        line = (
            f"samg-fast: warning: the target does not segment its own picture {', '.join(poor)}, so it will hardly be "
            "found elsewhere: check that the mask is white on the target, name parts of it with --point or --part, "
            "or try a picture that shows it larger or another --bundle"
        )
        typer.echo(printable(line), err=True)
