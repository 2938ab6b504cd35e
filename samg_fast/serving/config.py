"""What a Triton Inference Server is told of a bundle's networks: the configuration of each model.

`samg_fast.serving.repository` writes it, beside the networks themselves. Needs the extra ``triton``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, ModelConfig, ModelInstanceGroup

from samg_fast.bundle import Bundle, Role
from samg_fast.errors import BundleError, InputError

__all__ = ["CONFIG", "FINGERPRINT", "PLATFORMS", "PRECISION", "check_platform", "is_ours", "model_config", "model_name"]

CONFIG = "config.pbtxt"
"""The file in a model's folder that holds its configuration."""

PLATFORMS = {"onnxruntime": ("onnxruntime_onnx", "model.onnx"), "tensorrt": ("tensorrt_plan", "model.plan")}
"""What Triton can run a bundle's networks with: its name for that, and the file it looks for."""

FINGERPRINT = "samg_fast_fingerprint"
"""The parameter of a configuration that holds the bundle's fingerprint, by which a client knows its own."""

PRECISION = "samg_fast_precision"
"""The parameter that holds the precision."""

_BUNDLE = "samg_fast_bundle"


def check_platform(platform: str) -> None:
    """Refuse what Triton cannot run a bundle with.

    Raises
    ------
    InputError
        It is none of `PLATFORMS`.
    """
    if platform not in PLATFORMS:
        why = ", whose engines Triton cannot load" if platform == "tensorrt-rtx" else ""
        raise InputError(f"platform is {platform!r}{why}, expected {' or '.join(PLATFORMS)}")


def model_name(bundle: Bundle, role: Role) -> str:
    """Return what Triton calls a network of a bundle: ``tiny_encoder``.

    Raises
    ------
    BundleError
        The bundle's name cannot begin a model's, which is a folder and a part of an address.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", bundle.name):
        wanted = "letters and digits, and '_', '.' or '-' after the first"
        raise BundleError(f"bundle name {bundle.name!r} cannot begin the name of a model, expected {wanted}")
    return f"{bundle.name}_{role}"


def model_config(bundle: Bundle, role: Role, precision: str, platform: str, batches: tuple[int, ...]) -> Any:
    """Describe a network of a bundle to Triton, as its graph says it is.

    Parameters
    ----------
    bundle : Bundle
    role : {"encoder", "features", "decoder"}
    precision : str
        One of the bundle's.
    platform : str
        One of `PLATFORMS`.
    batches : tuple of int
        Numbers of pictures at once, from the smallest: for each, TensorRT's engine has a profile. The last one is the
        most, where the graph takes any number.

    Returns
    -------
    tritonclient.grpc.model_config_pb2.ModelConfig

    Raises
    ------
    BundleError
        The bundle's name cannot begin a model's, or the file does not keep the ONNX contract.
    """
    inputs, outputs = _ports(bundle.onnx_path(role, precision))
    # Triton adds the batch axis itself, to every input and output or to none
    batched = all(shape[0] == -1 for shape in (*inputs.values(), *outputs.values()))
    config = ModelConfig(name=model_name(bundle, role), platform=PLATFORMS[platform][0])
    config.max_batch_size = batches[-1] if batched else 0
    for name, shape in inputs.items():
        _declare(config.input.add(name=name), shape, batched)
    for name, shape in outputs.items():
        _declare(config.output.add(name=name), shape, batched)
    if batched:
        config.dynamic_batching.SetInParent()
    if platform == "tensorrt":
        group = config.instance_group.add(kind=ModelInstanceGroup.KIND_GPU)
        if batched:  # Triton uses the first profile alone where none is named
            group.profile.extend(str(index) for index in range(len(batches)))
    else:  # float32 is float32: the CUDA provider would round it to TF32
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["use_tf32"] = "0"
    for key, value in ((_BUNDLE, bundle.name), (FINGERPRINT, bundle.fingerprint), (PRECISION, precision)):
        config.parameters[key].string_value = value
    return config


def is_ours(folder: Path) -> bool:
    """Tell whether a folder is a model of ours: its configuration names a bundle."""
    try:
        config = text_format.Parse((folder / CONFIG).read_text(encoding="utf-8"), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return False
    return _BUNDLE in config.parameters


def _declare(port: Any, shape: tuple[int, ...], batched: bool) -> None:
    port.data_type = TYPE_FP32
    dims = shape[1:] if batched else shape
    port.dims.extend(dims or (1,))
    if not dims:  # Triton has no empty dims: one number for each picture goes over the wire as (B, 1)
        port.reshape.SetInParent()


def _ports(path: Path) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]:
    """Return the shapes of a graph's inputs and outputs, -1 where they are open."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise BundleError(f"{path} cannot be read as ONNX: {error}") from error
    return {port.name: _shape(path, port) for port in graph.input}, {p.name: _shape(path, p) for p in graph.output}


def _shape(path: Path, port: Any) -> tuple[int, ...]:
    tensor = port.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT or not tensor.shape.dim:
        raise BundleError(f"{path}: {port.name} is not what a bundle's graph has, expected float32 with a batch axis")
    return tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
