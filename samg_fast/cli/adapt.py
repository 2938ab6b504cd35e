"""``samg-fast adapt``."""

from __future__ import annotations

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
    say,
    write_json,
)


def adapt(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="What `samg-fast identify` wrote.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of the target: its reference, or another.")],
    mask: Annotated[
        Path, typer.Argument(metavar="MASK", help="A picture of the same size: white where the target is.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The target to write; TARGET is allowed.")],
    label: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The label in MASK that is the target; by default all but 0.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the jitter of human points.")] = 0,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Learn which of the decoder's three masks to trust (PerSAM-F), from one picture and its mask.

    It weighs the masks of a frame's first decode, and changes nothing else of a target. Whether it helps is a matter of
    the target: IoU on the picture is printed before and after.
    """
    from samg_fast.files import check_writable
    from samg_fast.media import read_image, read_mask
    from samg_fast.metrics import iou
    from samg_fast.target import Target

    given = Target.load(target)
    picture, truth = read_image(image), read_mask(mask, label=label)
    if any(path.exists() and out.exists() and path.samefile(out) for path in (image, mask)):
        raise typer.BadParameter("would overwrite a picture it is made of", param_hint="--out")
    check_writable(out)
    check_json(json)
    with open_segmenter(bundle, backend, precision, device, threads) as segmenter:
        adapted = segmenter.adapt(given, picture, truth, seed=seed)
        before, after = (iou(segmenter.segment(picture, each).mask, truth) for each in (given, adapted))
    adapted.save(out)
    weights = [round(float(weight), 4) for weight in adapted.mask_weights]
    words = ", ".join(f"{weight:.2f}" for weight in weights)
    say(f"{out}: mask weights {words}; IoU on {image} {before:.2f}, and {after:.2f} adapted", json_to=json)
    figures = {"target": str(out), "mask_weights": weights, "iou_before": round(before, 4), "iou": round(after, 4)}
    write_json(json, figures)
