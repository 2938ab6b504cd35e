"""A synthetic bundle whose graphs take a fixed number of pictures, as exported ones do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from samg_fast.bundle import Bundle, sha256_of, write_manifest


def fixed_batch(bundle: Bundle, folder: Path, batch: int) -> Bundle:
    """Copy a bundle with graphs that take so many pictures at once, and whose encoder's weights are beside it."""
    folder.mkdir()
    files = {}
    for role in ("encoder", "features", "decoder"):
        model = onnx.load(bundle.onnx_path(role))
        for port in (*model.graph.input, *model.graph.output):
            port.type.tensor_type.shape.dim[0].dim_value = batch
        name, beside = f"{role}.onnx", f"{role}.weights"
        if role == "encoder":
            onnx.save(model, folder / name, save_as_external_data=True, location=beside, size_threshold=0)
            files[role] = {"data": beside, "data_sha256": sha256_of(folder / beside)}
        else:
            onnx.save(model, folder / name)
            files[role] = {}
        files[role] |= {"file": name, "sha256": sha256_of(folder / name)}
    specs: dict[str, Any] = {role: replace(getattr(bundle.manifest, role), **files[role]) for role in files}
    write_manifest(folder, replace(bundle.manifest, **specs, batch=batch))
    return Bundle.open(folder)
