"""Trains the ``tiny`` bundle from rendered ground truth alone.

Modules in the order of data flow: `scenes` (MuJoCo models with random pose, camera, light and colours) → `pool`
(rendered once, kept on disk) → `compose` (builds new training pairs at every step: backgrounds, colours, targets) →
`model` (encoder and prompt decoder) → `episode` (a SAM-G frame in batches, with gradients) and `losses` → `train` →
`bundle` (ONNX files and manifest, with a parity check).
"""
