"""The decoder's logits to a mask at the frame's size."""

from __future__ import annotations

from typing import Any

from samg_fast.checks import Floats, describe
from samg_fast.devices.base import Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import operands
from samg_fast.ops.geometry import frame_taps
from samg_fast.ops.reference import ResizedLogits

__all__ = ["resize_logits"]


def resize_logits(
    low_res: Floats,
    *,
    weights: Floats | None = None,
    iou: Floats | None = None,
    prompt_side: int,
    height: int,
    width: int,
    out: ResizedLogits | None = None,
    device: Device = CPU,
) -> ResizedLogits:
    """Make one mask of the M masks of each decode, at the frame's size.

    The logits are resized to P, the letterbox's padding is cropped, and what is left is resized to the frame. Exactly
    one of `weights` and `iou` must be given: it says how M masks become one.

    Parameters
    ----------
    low_res : (B, M, 4G, 4G) float32 or float16 array
        Logits. The first axis may have any stride.
    weights : (B, M) float32 array, optional
        Sum the masks with these weights.
    iou : (B, M) float32 array, optional
        Take the mask with the highest predicted IoU, the first one of equals. A NaN counts as minus infinity. The first
        axis may have any stride.
    prompt_side : int
        P, the side of the prompt frame.
    height, width : int
        Size of the frame, in pixels.
    out : ResizedLogits, optional
        Where to write; allocated by default. Its `settled` and `logits` may be None: then they are not written.
    device : Device
        Where the arrays are and the kernel runs.

    Returns
    -------
    ResizedLogits
        `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has the wrong dtype, shape or range, or not exactly one of `weights` and `iou` is given.
    """
    low_res = operands.square(device, "low_res", low_res, (None, None), first=1)
    side = low_res.shape[-1]
    if (weights is None) == (iou is None):
        raise InputError("either weights or iou must be given, and not both")
    operands.check_frame_size(prompt_side, height, width)
    batch, masks = low_res.shape[:2]
    if weights is not None:
        weights = operands.read(device, "weights", weights, (batch, masks))
    else:
        iou = operands.read(device, "iou", iou, (batch, masks), first=1)
    rows, columns = frame_taps((side, prompt_side), height, width)
    made = {
        "settled": ((batch, side, side), operands.FLOAT32),
        "logits": ((batch, height, width), operands.FLOAT32),
        "mask": ((batch, height, width), operands.BOOL),
        "area": ((batch,), operands.INT32),
        "box": ((batch, 4), operands.INT32),
        "chosen": ((batch,), operands.INT32),
    }
    if out is None:
        result = ResizedLogits(**{name: device.empty(shape, dtype[0]) for name, (shape, dtype) in made.items()})
    elif not isinstance(out, ResizedLogits):
        raise InputTypeError(f"out must be a ResizedLogits, not {describe(out)}")
    else:
        given: dict[str, Any] = {
            name: None
            if array is None and name in ("settled", "logits")
            else operands.written(device, f"out.{name}", array, *made[name])
            for name, array in out._asdict().items()
        }
        result = ResizedLogits(**given)
    taps = operands.taps(device, rows), operands.taps(device, columns)
    device.run("resize_logits", low_res, weights, iou, *taps, *result)
    return result
