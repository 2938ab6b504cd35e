"""int8 by NNCF: quantise and dequantise nodes in the graph, their ranges from frames that the project renders."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["FRAMES", "calibration_frames", "to_int8"]

FRAMES = 32
"""How many frames ranges are taken from."""


def calibration_frames(count: int = FRAMES) -> NDArray[np.uint8]:
    """Pick rendered frames from all tasks and settings of the shipped clips, (count, H, W, 3) uint8."""
    from samg_fast.samples import load_pack

    clips = [frames for task in load_pack().tasks.values() for frames, _ in task.settings.values()]
    every = np.concatenate(clips)
    chosen: NDArray[np.uint8] = every[np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int)]
    return chosen


def to_int8(model: onnx.ModelProto, inputs: Sequence[NDArray[np.float32]], *, transformer: bool) -> onnx.ModelProto:
    """Quantise an image network.

    Parameters
    ----------
    model : onnx.ModelProto
        Float32, one input.
    inputs : sequence of float32 arrays
        What ranges are taken from.
    transformer : bool
        Whether it is one: the inputs of its layer norms and its residual sums stay in float then.

    Returns
    -------
    onnx.ModelProto
        With quantise and dequantise nodes; weights in int8 per channel, activations in uint8 or int8 per tensor.
    """
    # NNCF writes to its loggers and to the terminal, at import too
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        nncf.set_log_level(logging.ERROR)
        name = model.graph.input[0].name
        dataset = nncf.Dataset([{name: each} for each in inputs])
        parameters: dict[str, Any] = {"model_type": nncf.ModelType.TRANSFORMER} if transformer else {}
        # One scale for all channels of an activation: ONNX Runtime's convolutions know no other
        whole = QuantizationParameters(per_channel=False)
        quantised = nncf.quantize(
            model,
            dataset,
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_quantization_params=whole),
            **parameters,
        )
    out: onnx.ModelProto = quantised
    _unsigned(out)
    return out


def _unsigned(model: onnx.ModelProto) -> None:
    """Turn asymmetric int8 activations into the same in uint8, in place.

    NNCF shifts int8 by a zero point. OpenVINO has fast kernels for shifted uint8 alone and computes shifted int8 in
    float32; 128 more on the zero point and on every value is the same numbers.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    for name in points:
        point = numpy_helper.to_array(weights[name])
        if point.dtype == np.int8 and point.any():
            shifted = (point.astype(np.int16) + 128).astype(np.uint8)
            weights[name].CopyFrom(numpy_helper.from_array(shifted, name))
    del model.graph.value_info[:]  # it speaks of int8 still; runtimes work types out by themselves
