"""Writes a bundle as a Triton Inference Server model repository: one model per graph, with its configuration.

`docs/triton.md` explains how to serve and call it. Needs the extra ``triton``.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from google.protobuf import text_format

from samg_fast.backends import CompilingBackend, Options, choose
from samg_fast.bundle import Bundle, Role
from samg_fast.checks import check_whole
from samg_fast.errors import FileError, InputError
from samg_fast.files import flush, flush_folder
from samg_fast.serving.config import CONFIG, PLATFORMS, check_platform, is_ours, model_config

__all__ = ["ServedModel", "write_repository"]

_VERSION = "1"
_MAX_BATCH = Options.batches[-1]

Engine = Callable[[Role], bytes]
_WriteFiles = Callable[[Role, Path], None]  # writes a network's files into a version's folder


@dataclass(frozen=True)
class ServedModel:
    """One model of a repository.

    Parameters
    ----------
    name : str
        The name that clients request.
    role : {"encoder", "features", "decoder"}
        The network it serves. If encoder and features share one graph, ``"encoder"`` is both.
    max_batch_size : int
        Maximum batch size; 0 if the graph's batch size is fixed, in which case the shapes of its inputs contain it.
    files : tuple of pathlib.Path
        The files written, relative to the repository.
    """

    name: str
    role: Role
    max_batch_size: int
    files: tuple[Path, ...]


def write_repository(
    bundle: Bundle,
    folder: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    platform: str = "onnxruntime",
    most: int | None = None,
    engine: Engine | None = None,
) -> list[ServedModel]:
    """Write a bundle's networks as a model repository, either all of them or none.

    Parameters
    ----------
    bundle : Bundle
        Its name starts the models' names.
    folder : str or os.PathLike
        The repository; created if it does not exist. Models of this bundle that this function wrote earlier are
        replaced one by one; models of other bundles stay.
    precision : str
        One of the bundle's.
    platform : {"onnxruntime", "tensorrt"}
        What Triton runs the networks with. TensorRT's engines must be built on the GPU that will run them.
    most : int, optional
        Maximum batch size, if the bundle takes any; 8 by default. TensorRT's engines are tuned for batches of 1 and of
        this size.
    engine : callable, optional
        Returns a network's TensorRT engine. By default it comes from the engine cache, and is built if missing.

    Returns
    -------
    list of ServedModel

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid, or the bundle does not have the precision.
    BundleError
        The bundle's name cannot start a model's name, or a file does not follow the bundle's ONNX format.
    BackendError, MissingExtraError
        TensorRT cannot build engines here.
    FileError
        The folder cannot be written, or holds something that this function did not write.
    """
    check_platform(platform)
    if precision not in bundle.manifest.precisions:
        held = ", ".join(bundle.manifest.precisions)
        raise InputError(f"precision is {precision!r}, but bundle {bundle.name} has files for {held} only")
    batches = _batches(most, bundle)
    final = Path(folder).resolve()
    _check_ours(final)
    roles = bundle.manifest.graphs
    configs = {role: model_config(bundle, role, precision, platform, batches) for role in roles}
    if platform == "tensorrt":
        write_files = _engine_writer(engine or _cached_engines(bundle, precision, batches))
    else:
        write_files = _onnx_writer(bundle, precision)
    staging = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for role in roles:
            _write_model(staging / configs[role].name, configs[role], partial(write_files, role))
        files = {role: _files(staging / configs[role].name) for role in roles}
        for path in (*staging.rglob("*"), staging):
            (flush if path.is_file() else flush_folder)(path)
        _publish(staging, final)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot write the model repository {final}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [ServedModel(configs[role].name, role, configs[role].max_batch_size, files[role]) for role in roles]


def _batches(most: object, bundle: Bundle) -> tuple[int, ...]:
    """Return the batch sizes that engines are tuned for, in ascending order."""
    most = None if most is None else check_whole("most", most, 1)
    fixed = bundle.manifest.batch
    if fixed is None:
        return tuple(sorted({1, most or _MAX_BATCH}))
    if most not in (None, fixed):
        raise InputError(f"most is {most}, but bundle {bundle.name} was made for {fixed} at once, no more and no fewer")
    return (fixed,)


def _cached_engines(bundle: Bundle, precision: str, batches: tuple[int, ...]) -> Engine:
    backend = cast(CompilingBackend, choose("tensorrt", precision, None, bundle.manifest, batches=batches))
    from samg_fast.engine_cache import prepare

    engines = {report.role: engine for report, engine in prepare(bundle, backend)}
    return engines.__getitem__


def _onnx_writer(bundle: Bundle, precision: str) -> _WriteFiles:
    def write(role: Role, version: Path) -> None:
        spec = bundle.file(role, precision)
        shutil.copyfile(bundle.path / spec.file, version / PLATFORMS["onnxruntime"][1])
        if spec.data is not None:  # not renamed: the graph refers to its weights by this name
            shutil.copyfile(bundle.path / spec.data, version / spec.data)

    return write


def _engine_writer(engine: Engine) -> _WriteFiles:
    def write(role: Role, version: Path) -> None:
        (version / PLATFORMS["tensorrt"][1]).write_bytes(engine(role))

    return write


def _write_model(folder: Path, config: Any, write_files: Callable[[Path], None]) -> None:
    version = folder / _VERSION
    version.mkdir(parents=True)
    text = text_format.MessageToString(config, use_short_repeated_primitives=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    write_files(version)


def _check_ours(folder: Path) -> None:
    """Raise an error if a folder contains anything that this package did not write."""
    try:
        foreign = sorted(entry.name for entry in folder.iterdir() if not is_ours(entry)) if folder.exists() else []
    except OSError as error:
        raise FileError(f"cannot write the model repository {folder}: {error.strerror or error}") from error
    if foreign:
        raise FileError(f"cannot write the model repository {folder}: it holds {foreign[0]}, which is no model of ours")


def _publish(staging: Path, final: Path) -> None:
    """Move the written models to their place: the whole folder if it is new, else model by model."""
    if not final.exists():
        staging.rename(final)
    else:
        for model in list(staging.iterdir()):
            _swap(model, final / model.name)
        flush_folder(final)
    flush_folder(final.parent)


def _swap(new: Path, final: Path) -> None:
    old = new.with_name(f"{new.name}.old")
    if final.exists():
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise


def _files(model: Path) -> tuple[Path, ...]:
    return tuple(sorted(path.relative_to(model.parent) for path in model.rglob("*") if path.is_file()))
