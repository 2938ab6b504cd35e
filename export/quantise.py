"""int8 by NNCF: QuantizeLinear and DequantizeLinear nodes, with ranges measured on the shipped rendered frames."""

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
"""Number of frames to measure ranges on."""


def calibration_frames(count: int = FRAMES) -> NDArray[np.uint8]:
    """Return shipped frames spread evenly over all tasks and settings, (count, H, W, 3) uint8."""
    from samg_fast.samples import load_pack

    clips = [clip for task in load_pack().tasks.values() for clip, _ in task.settings.values()]
    frames = np.concatenate(clips)
    selected: NDArray[np.uint8] = frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    return selected


def to_int8(model: onnx.ModelProto, inputs: Sequence[NDArray[np.float32]], *, transformer: bool) -> onnx.ModelProto:
    """Quantise an image network.

    Parameters
    ----------
    model : onnx.ModelProto
        Float32, one input.
    inputs : sequence of float32 arrays
        Inputs to measure ranges on.
    transformer : bool
        Whether the network is a transformer: inputs of layer norms and residual sums then stay in float32.

    Returns
    -------
    onnx.ModelProto
        With quantise and dequantise nodes; weights in int8 per channel, activations in uint8 or int8 per tensor.
    """
    # NNCF prints to its loggers and to the terminal, even at import
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        nncf.set_log_level(logging.ERROR)
        name = model.graph.input[0].name
        dataset = nncf.Dataset([{name: each} for each in inputs])
        parameters: dict[str, Any] = {"model_type": nncf.ModelType.TRANSFORMER} if transformer else {}
        # One scale for all channels of an activation: ONNX Runtime's convolutions support nothing else
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
    _make_unsigned(out)
    return out


def _make_unsigned(model: onnx.ModelProto) -> None:
    """Convert asymmetric int8 activations to equivalent uint8 ones, in place.

    NNCF uses int8 with a zero point. OpenVINO has fast kernels for uint8 with a zero point only, and computes such int8
    in float32. Adding 128 to the zero point and to every value represents the same numbers.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    for name in points:
        point = numpy_helper.to_array(weights[name])
        if point.dtype == np.int8 and point.any():
            shifted = (point.astype(np.int16) + 128).astype(np.uint8)
            weights[name].CopyFrom(numpy_helper.from_array(shifted, name))
    del model.graph.value_info[:]  # it still says int8; runtimes infer types themselves
