"""``samg-fast models``."""

from __future__ import annotations

from samg_fast.cli.common import JsonOption, check_json, say, show_table, write_json

_OFFICIAL = """
Official models have names such as l0-vits14: EfficientViT-SAM l0, l1, l2, xl0 or xl1, and DINOv2 vits14, vitb14, vitl14
or vitg14, each of these also with -reg. Make l0-vits14 with:
samg-fast pull efficientvit-sam-l0 dinov2-vits14 && samg-fast export --sam l0 --dino vits14"""


def models(json: JsonOption = None) -> None:
    """List the named bundles, and print how to export official models."""
    from samg_fast.bundle.zoo import bundles

    check_json(json)
    found = bundles()
    rows = [(info.name, "ships" if info.shipped else "exported", info.description) for info in found]
    show_table(("bundle", "origin", "description"), rows, json_to=json)
    say(_OFFICIAL, json_to=json)
    figures = [
        {
            "name": info.name,
            "shipped": info.shipped,
            "fitted": info.fitted,
            "path": str(info.path),
            "description": info.description,
        }
        for info in found
    ]
    write_json(json, {"bundles": figures})
