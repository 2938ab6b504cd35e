"""``samg-fast export``: official checkpoints to a bundle, and a bundle to a model repository for Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from samg_fast.cli.common import JsonOption, check_json, extra, say, show_table, write_json
from samg_fast.errors import CheckpointError, InputError


def export(
    ctx: typer.Context,
    sam: Annotated[
        str | None, typer.Option(metavar="NAME", help="efficientvit-sam-l0 … -xl1; short: l0 … xl1.")
    ] = None,
    dino: Annotated[
        str | None, typer.Option(metavar="NAME", help="dinov2-vits14 … -vitg14, with -reg for registers.")
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Instead of models: a bundle to add --precision to, or to serve."),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its official checkpoint; by default the one that was pulled.")
    ] = None,
    dino_checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its official checkpoint; by default the one that was pulled.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="The bundle's folder; by default where load finds it by name."),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="NAME,…", help="fp16, bf16, int8 beside fp32, separated by commas.")
    ] = "fp32",
    batch: Annotated[
        int,
        typer.Option(min=0, help="Batch size of the graphs, 0 for any. With --triton the maximum, 8 by default."),
    ] = 1,
    sam_side: Annotated[
        int | None, typer.Option(help="Input side of the SAM side, a multiple of 32; by default the model's own.")
    ] = None,
    dino_side: Annotated[int, typer.Option(help="Input side of the DINO side, a multiple of 14.")] = 448,
    slots: Annotated[int, typer.Option(help="Points and box corners the decoder takes: parts + 6.")] = 16,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the --bundle's networks here as a model repository for Triton."),
    ] = None,
    platform: Annotated[
        str, typer.Option(metavar="NAME", help="What Triton runs them with: onnxruntime, or tensorrt on this GPU.")
    ] = "onnxruntime",
    json: JsonOption = None,
) -> None:
    """Build a bundle from official checkpoints, and check that it agrees with PyTorch.

    If a network does not agree, no bundle can be loaded: the manifest is written last.

    With --triton nothing is exported: an existing bundle is written as a model repository for Triton Inference Server:

    samg-fast export --triton repository --bundle tiny
    """
    if triton is not None:
        _refuse_beside_triton(ctx)
        max_batch = batch if _is_given(ctx, "batch") else None
        _write_repository(triton, bundle, precision=precision, platform=platform, max_batch=max_batch, json=json)
        return
    if _is_given(ctx, "platform"):
        raise typer.BadParameter("needs --triton", param_hint="--platform")
    with extra("exporting", "export"):
        from samg_fast.export import add_precisions, export_bundle
        from samg_fast.export.models import dino_variant, sam_variant
    from samg_fast.bundle.zoo import exported_folder

    check_json(json)

    def progress(text: str) -> None:
        say(text, json_to=json)

    if bundle is not None:
        if sam or dino or out is None:
            raise typer.BadParameter("needs --out, and neither --sam nor --dino", param_hint="--bundle")
        report = add_precisions(bundle, out, precision=precision, say=progress)
    elif sam is None or dino is None:
        raise typer.BadParameter("are both needed, or --bundle", param_hint="--sam and --dino")
    else:
        sam_name, dino_name = f"efficientvit-sam-{sam_variant(sam)}", f"dinov2-{dino_variant(dino)}"
        report = export_bundle(
            sam_name,
            sam_checkpoint or _pulled(sam_name, "--sam-checkpoint"),
            dino_name,
            dino_checkpoint or _pulled(dino_name, "--dino-checkpoint"),
            out or exported_folder() / f"{sam_variant(sam)}-{dino_variant(dino)}",
            precision=precision,
            batch=batch or None,
            sam_side=sam_side,
            dino_side=dino_side,
            slots=slots,
            say=progress,
        )
    figures = report.to_dict()
    say(f"\nAgainst {report.reference}, on sample frames:", json_to=json)
    columns: tuple[str, ...] = (
        "precision",
        "run by",
        "network",
        "output",
        "largest error",
        "mean error",
        "cosine",
        "correlation",
    )
    show_table(columns, [_output_row(each) for each in figures["outputs"]], numbers=4, json_to=json)
    say("", json_to=json)
    columns = ("precision", "run by", "frames", "points that moved", "IoU after decode 1", "IoU after decode 3")
    show_table(columns, [_frame_row(each) for each in figures["frames"]], numbers=4, json_to=json)
    for note in report.notes:
        say(note, json_to=json)
    say(f"\nbundle: {report.path}", json_to=json)
    write_json(json, figures)


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_beside_triton(ctx: typer.Context) -> None:
    """Reject options that apply only to an export."""
    for name in ("sam", "dino", "sam_checkpoint", "dino_checkpoint", "out", "sam_side", "dino_side", "slots"):
        if _is_given(ctx, name):
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"takes a bundle as it is, without {option}", param_hint="--triton")


def _write_repository(
    folder: Path, name: str | None, *, precision: str, platform: str, max_batch: int | None, json: Path | None
) -> None:
    if name is None:
        raise typer.BadParameter("needs --bundle", param_hint="--triton")
    if "," in precision:
        raise typer.BadParameter("is one precision where --triton is given", param_hint="--precision")
    if max_batch == 0:
        raise typer.BadParameter("is 1 or more where --triton is given", param_hint="--batch")
    with extra("writing a Triton model repository", "triton"):
        from samg_fast.serving.config import check_platform
        from samg_fast.serving.repository import write_repository
    from samg_fast.bundle import Bundle
    from samg_fast.bundle.zoo import resolve

    try:
        check_platform(platform)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--platform") from error
    check_json(json)
    bundle = Bundle.open(resolve(name))
    models = write_repository(bundle, folder, precision=precision, platform=platform, most=max_batch)
    rows = [(each.name, each.max_batch_size or "fixed", file) for each in models for file in each.files]
    show_table(("model", "most at once", "file"), rows, json_to=json)
    say(f"\nmodel repository: {folder}", json_to=json)
    figures = {
        "repository": str(folder),
        "bundle": bundle.name,
        "precision": precision,
        "platform": platform,
        "models": [
            {
                "name": each.name,
                "role": each.role,
                "max_batch_size": each.max_batch_size,
                "files": [{"file": file.as_posix(), "bytes": (folder / file).stat().st_size} for file in each.files],
            }
            for each in models
        ],
    }
    write_json(json, figures)


def _pulled(name: str, option: str) -> Path:
    from samg_fast.bundle.checkpoints import path_of

    path = path_of(name)
    if path is None:
        raise CheckpointError(f"no checkpoint of {name} is here; run: samg-fast pull {name}, or give {option}")
    return path


def _output_row(each: dict[str, Any]) -> tuple[str, ...]:
    names = (each["precision"], each["runtime"], each["role"], each["output"])
    return (
        *names,
        f"{each['largest']:.1e}",
        f"{each['mean']:.1e}",
        f"{each['cosine']:.6f}",
        f"{each['correlation']:.6f}" + ("" if each["holds"] else " too low"),
    )


def _frame_row(each: dict[str, Any]) -> tuple[str, ...]:
    moved = f"{each['moved']} of {each['points']}"
    return (
        each["precision"],
        each["runtime"],
        str(each["frames"]),
        moved,
        f"{each['first_iou']:.4f} lowest",
        f"{each['lowest_iou']:.3f} lowest, {each['mean_iou']:.3f} mean",
    )
