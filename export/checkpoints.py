"""Reads official checkpoints as tensors, without running code in them, and loads them into models key by key."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from samg_fast.errors import CheckpointError

__all__ = ["load_into", "load_state_dict"]

_LFS = b"version https://git-lfs.github.com/spec/"
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_MAX_LISTED = 3


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a checkpoint.

    Parameters
    ----------
    path : str or os.PathLike
        A file that `torch.save` wrote, with a dict of tensors or ``{"state_dict": dict of tensors}``; or a
        ``.safetensors`` file.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU, floating-point tensors as float32, all their values finite. They may be memory-mapped: do not change
        the file while they are in use.

    Raises
    ------
    CheckpointError
        The file does not exist, is not a checkpoint, is truncated, contains code (which is not run), or contains NaN or
        infinite values.
    """
    path = Path(path)
    _check_file(path)
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"checkpoint {path} holds {_kind(content)}; expected a dict of tensors by name")
    state_dict: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise CheckpointError(
                f"checkpoint {path} holds {_kind(value)} under {key!r}; expected a dict of tensors by name"
            )
        # Some checkpoints are published in half precision
        tensor = value.detach().to(torch.float32) if value.is_floating_point() else value.detach()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"checkpoint {path}: {key} holds NaN or infinite values; expected finite ones")
        state_dict[key] = tensor
    return state_dict


def load_into(
    model: torch.nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    name: str,
    path: str | os.PathLike[str],
    variants: Mapping[str, Mapping[str, tuple[int, ...]]] | None = None,
) -> None:
    """Load a checkpoint's tensors into a model with exactly the same keys and shapes, buffers included.

    Parameters
    ----------
    model : torch.nn.Module
    state_dict : mapping of str to torch.Tensor
    name : str
        Name of the checkpoint that the model needs, for error messages: ``"efficientvit-sam-l0"``.
    path : str or os.PathLike
        Where the tensors came from, for error messages.
    variants : mapping, optional
        Name -> keys and shapes of every known checkpoint, to recognise a checkpoint that does not fit.

    Raises
    ------
    CheckpointError
        Keys are missing or unknown, or shapes differ; the model is unchanged. If the tensors fit another of the
        `variants`, the message names it.
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state_dict.items()}
    if found == expected:
        # assign: the model may be on the meta device, without memory of its own
        model.load_state_dict(state_dict, strict=True, assign=True)
        return
    for other, shapes in (variants or {}).items():
        if other != name and found == {key: tuple(shape) for key, shape in shapes.items()}:
            raise CheckpointError(f"{path} is a checkpoint of {other}, not of {name}")
    differences = (
        ("missing", [key for key in expected if key not in found]),
        ("unknown", [key for key in found if key not in expected]),
        (
            "of another shape",
            [
                f"{key}: {found[key]}, expected {shape}"
                for key, shape in expected.items()
                if found.get(key, shape) != shape
            ],
        ),
    )
    listed = "; ".join(f"{len(keys)} {how} ({_first(keys)})" for how, keys in differences if keys)
    raise CheckpointError(
        f"{path} is no checkpoint of {name}: of its {len(found)} tensors and {len(expected)} expected ones, {listed}"
    )


def _check_file(path: Path) -> None:
    """Raise an error for what often lies where a checkpoint should: nothing, a folder, a web page, a pointer."""
    try:
        if path.is_dir():
            raise CheckpointError(f"checkpoint {path} is a folder; expected a file")
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty")
    if head.startswith(_LFS):
        raise CheckpointError(f"checkpoint {path} is a Git LFS pointer, not the weights; run: git lfs pull")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP):
        raise CheckpointError(f"checkpoint {path} is a web page that was saved under its name, not the weights")
    if head.startswith(_ZIP) and not zipfile.is_zipfile(path):
        raise CheckpointError(f"checkpoint {path} is truncated: it ends after {size} bytes, before its index")


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or no safetensors file: {error}") from error


def _torch_file(path: Path) -> Any:
    """Unpickle tensors and plain containers, but nothing that would run code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol; unreadable files are reported below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except EOFError as error:
        raise CheckpointError(f"checkpoint {path} is truncated") from error
    except Exception as error:  # an unpickler may raise any exception on bytes that are not a pickle
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"checkpoint {path} holds code ({code[1]}) beside tensors, so it is not loaded; expected tensors alone"
            ) from error
        with path.open("rb") as file:
            pickled = file.read(1) == _PICKLE
        what = "truncated, or a pickle of other things than tensors" if pickled else "no checkpoint, or damaged"
        raise CheckpointError(
            f"checkpoint {path} is {what}; expected what torch.save writes of a dict of tensors"
        ) from error


def _kind(value: object) -> str:
    return "an empty dict" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"


def _first(texts: Iterable[str]) -> str:
    texts = list(texts)
    return ", ".join(texts[:_MAX_LISTED]) + (", …" if len(texts) > _MAX_LISTED else "")
