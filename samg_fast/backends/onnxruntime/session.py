"""What every session of ONNX Runtime is opened with."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

__all__ = ["session_options"]


def session_options() -> Any:
    """Return new options of a session."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors are raised; its warnings are about its own graph rewriting
    options.inter_op_num_threads = 1
    return options
