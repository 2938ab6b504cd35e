"""Options shared by all ONNX Runtime sessions."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from samg_fast.devices import process
from samg_fast.devices.machine import physical_cores

__all__ = ["session_options"]

process.keep_in_children(ort)  # it starts threads when it is imported


def session_options(threads: int | None = None) -> Any:
    """Return new options of a session.

    Parameters
    ----------
    threads : int or None
        Threads of a call. None stands for one for each physical core that this process may use: ONNX Runtime itself
        would count, and bind its threads to, the cores that this process may not use as well.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors are raised anyway; the warnings concern only its graph optimizer
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or physical_cores()
    return options
