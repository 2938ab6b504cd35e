"""``samg-fast models``."""

from __future__ import annotations

from samg_fast.cli.common import JsonOption, check_json, show_table, write_json


def models(json: JsonOption = None) -> None:
    """List the bundles that have a name, and where each one stands."""
    from samg_fast.bundle.zoo import bundles

    check_json(json)
    found = bundles()
    stands = {info.name: "ships" if info.shipped else "exported" if info.path else "to be exported" for info in found}
    rows = [(info.name, stands[info.name], info.description) for info in found]
    show_table(("bundle", "stands", "description"), rows, json_to=json)
    figures = [
        {
            "name": info.name,
            "shipped": info.shipped,
            "path": None if info.path is None else str(info.path),
            "description": info.description,
        }
        for info in found
    ]
    write_json(json, {"bundles": figures})
