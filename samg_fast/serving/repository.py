"""A Triton Inference Server model repository of a bundle: one model for each graph, each with its configuration.

`docs/triton.md` says how it is served and called. Needs the extra ``triton``.
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
from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.files import flush, flush_folder
from samg_fast.serving.config import CONFIG, PLATFORMS, check_platform, is_ours, model_config

__all__ = ["ServedModel", "write_repository"]

_VERSION = "1"
_MOST = Options.batches[-1]

Engine = Callable[[Role], bytes]
_Place = Callable[[Role, Path], None]  # puts a network's files into the folder of a version


@dataclass(frozen=True)
class ServedModel:
    """One model of a repository.

    Parameters
    ----------
    name : str
        What a client asks for.
    role : {"encoder", "features", "decoder"}
        The network it is; where encoder and features are one graph, the encoder is both.
    max_batch_size : int
        The most pictures at once; 0 where the graph takes a fixed number, which its inputs' shapes then show.
    files : tuple of pathlib.Path
        What was written, from the repository's folder on.
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
    """Write a bundle's networks as a model repository, all of them or none.

    Parameters
    ----------
    bundle : Bundle
        Its name begins the models' names.
    folder : str or os.PathLike
        The repository; made if it is not there. Models that this function wrote there before are replaced one by one,
        and those of other bundles stay.
    precision : str
        One of the bundle's.
    platform : {"onnxruntime", "tensorrt"}
        What Triton runs the networks with. TensorRT's engines are built on the GPU that is to run them.
    most : int, optional
        The most pictures at once, where the bundle takes any number; 8 by default. TensorRT's engines are tuned for
        one and for so many.
    engine : callable, optional
        Gives a network's TensorRT engine; by default from the engine cache, where it is built if it is not there.

    Returns
    -------
    list of ServedModel

    Raises
    ------
    InputError, InputTypeError
        An argument is none of these, or the bundle has no such precision.
    BundleError
        The bundle's name cannot begin a model's, or a file does not keep the ONNX contract.
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
        place = _engine_file(engine or _cached_engines(bundle, precision, batches))
    else:
        place = _onnx_files(bundle, precision)
    staging = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for role in roles:
            _write_model(staging / configs[role].name, configs[role], partial(place, role))
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
    """Return what engines are tuned for, from the smallest."""
    if most is not None and (not isinstance(most, int) or isinstance(most, bool)):
        raise InputTypeError(f"most is {most!r}, expected a whole number")
    if most is not None and most < 1:
        raise InputError(f"most is {most}, expected 1 or more")
    fixed = bundle.manifest.batch
    if fixed is None:
        return tuple(sorted({1, most or _MOST}))
    if most not in (None, fixed):
        raise InputError(f"most is {most}, but bundle {bundle.name} was made for {fixed} at once, no more and no fewer")
    return (fixed,)


def _cached_engines(bundle: Bundle, precision: str, batches: tuple[int, ...]) -> Engine:
    backend = cast(CompilingBackend, choose("tensorrt", precision, None, bundle.manifest, batches=batches))
    from samg_fast.engine_cache import prepare

    made = {report.role: engine for report, engine in prepare(bundle, backend)}
    return made.__getitem__


def _onnx_files(bundle: Bundle, precision: str) -> _Place:
    def place(role: Role, version: Path) -> None:
        spec = bundle.file(role, precision)
        shutil.copyfile(bundle.path / spec.file, version / PLATFORMS["onnxruntime"][1])
        if spec.data is not None:  # the graph asks for it by this name, whatever its own is
            shutil.copyfile(bundle.path / spec.data, version / spec.data)

    return place


def _engine_file(engine: Engine) -> _Place:
    def place(role: Role, version: Path) -> None:
        (version / PLATFORMS["tensorrt"][1]).write_bytes(engine(role))

    return place


def _write_model(folder: Path, config: Any, place: Callable[[Path], None]) -> None:
    version = folder / _VERSION
    version.mkdir(parents=True)
    text = text_format.MessageToString(config, use_short_repeated_primitives=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    place(version)


def _check_ours(folder: Path) -> None:
    """Refuse a folder with anything in it that is not a model of ours."""
    try:
        strange = sorted(entry.name for entry in folder.iterdir() if not is_ours(entry)) if folder.exists() else []
    except OSError as error:
        raise FileError(f"cannot write the model repository {folder}: {error.strerror or error}") from error
    if strange:
        raise FileError(f"cannot write the model repository {folder}: it holds {strange[0]}, which is no model of ours")


def _publish(staging: Path, final: Path) -> None:
    """Rename what is written to where it belongs: the folder as a whole where it is new, else model by model."""
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
