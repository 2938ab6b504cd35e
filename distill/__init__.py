"""Train the ``tiny`` bundle from nothing but rendered ground truth.

Rooms, in the order the data flows: `scenes` (MuJoCo models, random pose, camera, light, colour) → `pool` (rendered
once, kept on disk) → `compose` (frames put together anew at every step: backgrounds, colours, targets) → `model`
(encoder and prompt decoder) → `episode` (the SAM-G frame, in batches, as the training loop lives it) and `losses` →
`train` → `bundle` (ONNX files and manifest, with a parity check).
"""
