"""Official checkpoints -> bundles: models in PyTorch, ONNX graphs at every precision, checks that they agree.

Needs PyTorch, from the extra ``export``; loading a bundle and segmenting with it does not.
"""

from __future__ import annotations

from .bundle import export_bundle
from .convert import add_precisions
from .variants import ExportReport

__all__ = ["ExportReport", "add_precisions", "export_bundle"]
