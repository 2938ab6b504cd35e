"""The Triton Inference Server configuration of each network of a bundle.

`samg_fast.serving.repository` writes it beside the network. Needs the extra ``triton``.
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
"""Platform -> (Triton's name for it, the file name that Triton looks for)."""

FINGERPRINT = "samg_fast_fingerprint"
"""Name of the configuration parameter with the bundle's fingerprint, by which a client recognises its bundle."""

PRECISION = "samg_fast_precision"
"""Name of the configuration parameter with the precision."""

_BUNDLE = "samg_fast_bundle"


def check_platform(platform: str) -> None:
    """Raise an error if Triton cannot run a bundle on `platform`.

    Raises
    ------
    InputError
        It is not one of `PLATFORMS`.
    """
    if platform not in PLATFORMS:
        why = ", whose engines Triton cannot load" if platform == "tensorrt-rtx" else ""
        raise InputError(f"platform is {platform!r}{why}, expected {' or '.join(PLATFORMS)}")


def model_name(bundle: Bundle, role: Role) -> str:
    """Return the name of the model that serves a network: ``tiny_encoder``.

    Raises
    ------
    BundleError
        The bundle's name cannot start a model's name, which is a folder name and part of a URL.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", bundle.name):
        wanted = "letters and digits, and '_', '.' or '-' after the first"
        raise BundleError(f"bundle name {bundle.name!r} cannot begin the name of a model, expected {wanted}")
    return f"{bundle.name}_{role}"


def model_config(bundle: Bundle, role: Role, precision: str, platform: str, batches: tuple[int, ...]) -> Any:
    """Build the Triton configuration of a network, with inputs and outputs as in its graph.

    Parameters
    ----------
    bundle : Bundle
    role : {"encoder", "features", "decoder"}
    precision : str
        One of the bundle's.
    platform : str
        One of `PLATFORMS`.
    batches : tuple of int
        Batch sizes in ascending order; TensorRT's engine has one profile for each. The last is the maximum if the
        graph takes any batch size.

    Returns
    -------
    tritonclient.grpc.model_config_pb2.ModelConfig

    Raises
    ------
    BundleError
        The bundle's name cannot start a model's name, or the file does not follow the bundle's ONNX format.
    """
    inputs, outputs = _ports(bundle.onnx_path(role, precision))
    # Triton adds a batch axis itself, either to every input and output or to none
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
        if batched:  # if none is named, Triton uses only the first profile
            group.profile.extend(str(index) for index in range(len(batches)))
    else:  # compute in real float32: by default the CUDA provider rounds to TF32
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["use_tf32"] = "0"
    for key, value in ((_BUNDLE, bundle.name), (FINGERPRINT, bundle.fingerprint), (PRECISION, precision)):
        config.parameters[key].string_value = value
    return config


def is_ours(folder: Path) -> bool:
    """Whether a folder is a model that this package wrote: its configuration names a bundle."""
    try:
        config = text_format.Parse((folder / CONFIG).read_text(encoding="utf-8"), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return False
    return _BUNDLE in config.parameters


def _declare(port: Any, shape: tuple[int, ...], batched: bool) -> None:
    port.data_type = TYPE_FP32
    dims = shape[1:] if batched else shape
    port.dims.extend(dims or (1,))
    if not dims:  # Triton allows no empty dims, so (B,) is sent as (B, 1)
        port.reshape.SetInParent()


def _ports(path: Path) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]:
    """Return the shapes of a graph's inputs and outputs by name; -1 for a dynamic axis."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise BundleError(f"{path} cannot be read as ONNX: {error}") from error
    inputs, outputs = ({port.name: _shape(path, port) for port in ports} for ports in (graph.input, graph.output))
    return inputs, outputs


def _shape(path: Path, port: Any) -> tuple[int, ...]:
    tensor = port.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT or not tensor.shape.dim:
        raise BundleError(f"{path}: {port.name} is not what a bundle's graph has, expected float32 with a batch axis")
    return tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
