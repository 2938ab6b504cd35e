"""Options shared by all ONNX Runtime sessions."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

__all__ = ["session_options"]


def session_options() -> Any:
    """Return new session options."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors are raised anyway; the warnings concern only its graph optimizer
    options.inter_op_num_threads = 1
    return options
