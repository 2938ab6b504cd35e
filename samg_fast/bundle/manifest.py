"""The content of a bundle's `manifest.json`, which is all a runtime must know; see `docs/bundle.md`."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from samg_fast.checks import is_whole
from samg_fast.errors import BundleError
from samg_fast.files import write_text

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PRECISIONS",
    "ROLES",
    "DecoderSpec",
    "FileSpec",
    "FittedManifest",
    "ImageSpec",
    "Manifest",
    "NetworkSpec",
    "PromptedManifest",
    "Resize",
    "Role",
    "write_manifest",
]

FORMAT = 1
"""The manifest format this package reads and writes."""

MANIFEST = "manifest.json"
"""The name of the manifest in a bundle's folder."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""Every precision the package knows; each backend and bundle offers some of them."""

Role = Literal["encoder", "features", "decoder", "network"]
Resize = Literal["uint8", "float"]
ROLES: tuple[Role, ...] = ("encoder", "features", "decoder")
"""The networks of a bundle that is shown what to cut out. One that is fitted to a target has a single ``"network"``."""

_Spec = TypeVar("_Spec", bound="FileSpec | Manifest")


@dataclass(frozen=True, kw_only=True)
class FileSpec:
    """One file of a bundle.

    Parameters
    ----------
    file : str
        Name of the file in the bundle's folder.
    sha256 : str
        SHA-256 of its content, 64 hexadecimal digits.
    data, data_sha256 : str, optional
        The external weights of an ONNX file that is too large for one file, and their SHA-256.
    """

    file: str
    sha256: str
    data: str | None = None
    data_sha256: str | None = None

    def __post_init__(self) -> None:
        _expect_file("file", self.file)
        _expect_digest("sha256", self.sha256)
        if self.data is not None:
            _expect_file("data", self.data)
            _expect_digest("data_sha256", self.data_sha256)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values for `manifest.json`, without those that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ImageSpec(FileSpec):
    """A network with one input ``image`` (B, 3, side, side), and how frames are prepared for it.

    Parameters
    ----------
    file, sha256 : str
        The ONNX file.
    side : int
        Input side in pixels; frames are letterboxed to it (longest side to `side`, zeros to the right and below).
    mean, std : tuple of 3 floats
        Normalisation of R, G, B in units of 0..1.
    resize : {"uint8", "float"}
        ``"uint8"``: Pillow's bilinear on the uint8 image (SAM); ``"float"``: divide by 255, then bilinear without
        antialias, align_corners False (DINOv2).
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "side", _positive("side", self.side))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        _expect(all(value > 0 for value in self.std), "std", self.std, "three numbers above 0")
        _expect(self.resize in ("uint8", "float"), "resize", self.resize, "'uint8' or 'float'")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(ImageSpec):
    """An image network with a dense map (B, channels, grid, grid) as its output.

    Parameters
    ----------
    file, sha256, side, mean, std, resize
        See `ImageSpec`. If `encoder` and `features` name the same file, they are one graph with two outputs.
    output : str
        Name of the output that holds the map.
    grid : int
        Side of the map, in cells.
    channels : int
        Channels of the map.
    """

    output: str
    grid: int
    channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect(isinstance(self.output, str) and self.output != "", "output", self.output, "an output's name")
        for name in ("grid", "channels"):
            object.__setattr__(self, name, _positive(name, getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(FileSpec):
    """The prompt decoder.

    Parameters
    ----------
    file, sha256 : str
        The ONNX file.
    target : bool
        Whether it has an input ``target`` (B, C): the target's feature in the embedding, as `Target.sam` has it
        (Personalize-SAM's target-semantic prompt, arXiv 2305.03048).
    """

    target: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect(isinstance(self.target, bool), "target", self.target, "true or false")

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values for `manifest.json`, without those that are not set."""
        return {key: value for key, value in super().to_dict().items() if value is not False}


@dataclass(frozen=True, kw_only=True)
class Manifest(ABC):
    """The content of `manifest.json`, as far as every bundle has it.

    Parameters
    ----------
    name, description, license, source : str
        The bundle's name, a one-line description, and the licence and origin of its weights.
    opset : int
        ONNX opset of the files.
    precisions : tuple of str
        Precisions of the files: ``"fp32"`` (the default files), and each key of `precision_files`.
    precision_files : mapping, optional
        Maps a precision to the files that replace the default ones: ``{"int8": {"encoder": FileSpec, ...}}``. Networks
        that are not named run in float32.
    agreement : mapping of str to float, optional
        Maps a precision to the mean IoU of its masks with fp32's on rendered frames, measured when the bundle was made.
    present : float, optional
        Score from which a target counts as present, chosen when the bundle was made; None if it was not.
    batch : int, optional
        The fixed batch size of every graph; None if any size is accepted.
    format : int
        Format version of the manifest.
    """

    name: str
    description: str
    license: str
    source: str
    opset: int
    precisions: tuple[str, ...]
    precision_files: Mapping[str, Mapping[Role, FileSpec]] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    present: float | None = None
    batch: int | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        _expect(self.format == FORMAT, "format", self.format, f"{FORMAT}, the only one this version reads")
        for name in ("name", "description", "license", "source"):
            _expect(isinstance(getattr(self, name), str), name, getattr(self, name), "a text")
        _expect(self.name != "", "name", self.name, "a name")
        object.__setattr__(self, "opset", _positive("opset", self.opset))
        if self.batch is not None:
            object.__setattr__(self, "batch", _positive("batch", self.batch))
        object.__setattr__(self, "precisions", _strings("precisions", self.precisions))
        for precision in self.precisions:
            _expect(precision in PRECISIONS, "precisions", precision, f"some of {', '.join(PRECISIONS)}")
        named = {"fp32", *self.precision_files}
        _expect(
            set(self.precisions) == named, "precisions", list(self.precisions), f"{sorted(named)} by the files named"
        )
        for precision, iou in self.agreement.items():
            _expect(precision in PRECISIONS, "agreement", precision, f"some of {', '.join(PRECISIONS)}")
            _expect_share(f"agreement.{precision}", iou)
        if self.present is not None:
            _expect_share("present", self.present)

    @property
    @abstractmethod
    def roles(self) -> tuple[Role, ...]:
        """The networks that the manifest describes."""

    @property
    @abstractmethod
    def graphs(self) -> tuple[Role, ...]:
        """The networks that have their own graph."""

    @property
    @abstractmethod
    def decisive(self) -> tuple[str, ...]:
        """The keys of all that decides what a target's features, or a fitted network's masks, are."""

    def file(self, role: Role, precision: str = "fp32") -> FileSpec:
        """Return the file of a network at a precision; the default one if that precision has no other."""
        return self.precision_files.get(precision, {}).get(role, getattr(self, role))

    def role_precision(self, role: Role, precision: str) -> str:
        """Return the precision of a network when the bundle runs at a precision.

        It is fp32 if that precision has files but none for this network, and otherwise the precision itself.
        """
        files = self.precision_files.get(precision)
        return "fp32" if files is not None and role not in files else precision

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values for `manifest.json`, without optional ones that are not set."""
        values = asdict(self)
        for role in self.roles:
            values[role] = getattr(self, role).to_dict()
        values["precision_files"] = {
            precision: {role: spec.to_dict() for role, spec in files.items()}
            for precision, files in self.precision_files.items()
        }
        for optional in ("precision_files", "agreement", "present", "batch", "target"):
            if optional in values and values[optional] in (None, {}):
                del values[optional]
        return {"format": values.pop("format"), **values}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Manifest:
        """Build a manifest from the plain values of `manifest.json`.

        Raises
        ------
        BundleError
            A key is missing, unknown, or has an invalid value; the message names it.
        """
        if not isinstance(values, Mapping):
            raise BundleError(f"a manifest must be a JSON object, not {type(values).__name__}")
        version = values.get("format", FORMAT)
        _expect(version == FORMAT, "format", version, f"{FORMAT}, the only one this version reads")
        kind: type[Manifest] = FittedManifest if "network" in values else PromptedManifest
        nested: dict[str, type[FileSpec]] = {
            "encoder": NetworkSpec,
            "features": NetworkSpec,
            "decoder": DecoderSpec,
            "network": ImageSpec,
        }
        plain = dict(values)
        for role, spec in nested.items():
            if role in plain:
                plain[role] = _build(spec, plain[role], f"{role}.")
        variants = plain.get("precision_files", {})
        _expect(isinstance(variants, Mapping), "precision_files", variants, "an object")
        roles = ("network",) if kind is FittedManifest else ROLES
        plain["precision_files"] = {name: _variant(name, files, roles) for name, files in variants.items()}
        for name in ("agreement", "accuracy"):
            if name in plain:
                _expect(isinstance(plain[name], Mapping), name, plain[name], "an object")
        return _build(kind, plain, "", required=("format",))


@dataclass(frozen=True, kw_only=True)
class PromptedManifest(Manifest):
    """The manifest of a bundle that is shown what to cut out: SAM-G's networks.

    Parameters
    ----------
    name, description, license, source, opset, precisions, precision_files, agreement, present, batch, format
        See `Manifest`.
    prompt_side : int
        P, the longest side of the frame in prompt coordinates (1024 in official SAM).
    slots : int
        N, the number of points and box corners that the decoder takes; empty slots have the label -2.
    encoder, features : NetworkSpec
        The SAM side and the DINO side.
    decoder : DecoderSpec
        The prompt decoder.
    """

    prompt_side: int
    slots: int
    encoder: NetworkSpec
    features: NetworkSpec
    decoder: DecoderSpec

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompt_side", "slots"):
            object.__setattr__(self, name, _positive(name, getattr(self, name)))
        self._check_shared_graph()

    @property
    def roles(self) -> tuple[Role, ...]:
        """Encoder, features and decoder."""
        return ROLES

    @property
    def graphs(self) -> tuple[Role, ...]:
        """The networks that have their own graph."""
        return tuple(role for role in ROLES if role != "features" or not self.shared_graph)

    @property
    def decisive(self) -> tuple[str, ...]:
        """The keys of all that decides what a target's features are."""
        return ("prompt_side", *ROLES)

    @property
    def shared_graph(self) -> bool:
        """Whether encoder and features are one graph, which then runs once per frame."""
        return self.encoder.file == self.features.file

    @property
    def max_parts(self) -> int:
        """The maximum number of parts of a target: the last decode also takes four other points and two box corners."""
        return self.slots - 6

    def _check_shared_graph(self) -> None:
        encoder, features = self.encoder, self.features
        if self.shared_graph:
            for name in ("sha256", "side", "mean", "std", "resize"):
                mine, other = getattr(encoder, name), getattr(features, name)
                what = f"the encoder's {name} ({mine}), as both are the graph {encoder.file}"
                _expect(mine == other, f"features.{name}", other, what)
            _expect(
                encoder.output != features.output,
                "features.output",
                features.output,
                "another output than the encoder's",
            )
        for precision in self.precision_files:
            first, second = self.file("encoder", precision), self.file("features", precision)
            same = (first.file == second.file) == self.shared_graph
            what = (
                "one file for both encoder and features"
                if self.shared_graph
                else "a file each for encoder and features"
            )
            _expect(same, f"precision_files.{precision}", f"{first.file} and {second.file}", what)


@dataclass(frozen=True, kw_only=True)
class FittedManifest(Manifest):
    """The manifest of a bundle that is fitted to one target: one network, from the image to the mask.

    Parameters
    ----------
    name, description, license, source, opset, precisions, precision_files, agreement, present, batch, format
        See `Manifest`.
    network : ImageSpec
        Its outputs are ``logits`` (B, 1, side, side) of the mask, and ``score`` (B, 1).
    target : str, optional
        `Target.digest` of the target it is fitted to; None if it was fitted to masks alone.
    accuracy : mapping of str to float, optional
        Mean IoU with the labels of held-out frames: ``"network"``, and ``"teacher"`` if it had one.
    """

    network: ImageSpec
    target: str | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            _expect_digest("target", self.target)
        for name, iou in self.accuracy.items():
            _expect_share(f"accuracy.{name}", iou)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The network."""
        return ("network",)

    @property
    def graphs(self) -> tuple[Role, ...]:
        """The network."""
        return ("network",)

    @property
    def decisive(self) -> tuple[str, ...]:
        """The keys of all that decides what the masks are."""
        return ("network",)


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> Path:
    """Write `manifest.json` into a bundle's folder atomically, and return its path.

    Raises
    ------
    FileError
        The file cannot be written there.
    """
    path = Path(folder) / MANIFEST
    write_text(path, json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return path


def _build(kind: type[_Spec], values: Any, prefix: str, required: tuple[str, ...] = ()) -> _Spec:
    """Build a dataclass from a JSON object; the error names the keys that are missing, unknown or wrong."""
    if not isinstance(values, Mapping):
        raise BundleError(f"{prefix.rstrip('.')} must be an object, not {values!r}")
    known = {item.name: item for item in fields(kind)}
    needed = {n for n, item in known.items() if item.default is MISSING and item.default_factory is MISSING}
    missing = sorted((needed | set(required)) - set(values))
    if missing:
        raise BundleError(f"missing {_keys(missing, prefix)}")
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise BundleError(f"unknown {_keys(unknown, prefix)}")
    try:
        return kind(**values)
    except BundleError as error:
        raise BundleError(f"{prefix}{error}") from None


def _variant(precision: str, files: Any, roles: Sequence[Role]) -> dict[Role, FileSpec]:
    prefix = f"precision_files.{precision}"
    _expect(isinstance(files, Mapping) and set(files) <= set(roles), prefix, files, f"an object with keys of {roles}")
    _expect(precision != "fp32", prefix, "fp32", "another precision: the default files are fp32")
    return {role: _build(FileSpec, spec, f"{prefix}.{role}.") for role, spec in files.items()}


def _keys(names: list[str], prefix: str) -> str:
    return f"key{'s' if len(names) > 1 else ''} {', '.join(prefix + name for name in names)}"


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise BundleError(f"{name} is {value!r}, expected {expected}")


def _expect_file(name: str, value: object) -> None:
    plain = isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\:\0")
    _expect(plain, name, value, "a plain file name")


def _expect_digest(name: str, value: object) -> None:
    digits = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    _expect(digits, name, value, "64 lower-case hexadecimal digits")


def _expect_share(name: str, value: object) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    _expect(good, name, value, "a number from 0 to 1")


def _positive(name: str, value: Any) -> int:
    _expect(is_whole(value) and value > 0, name, value, "a whole number above 0")
    return int(value)


def _three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    good = isinstance(values, (list, tuple)) and len(values) == 3
    good = good and all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e6 for v in values)
    _expect(good, name, values, "three numbers")
    return (float(values[0]), float(values[1]), float(values[2]))


def _strings(name: str, values: Any) -> tuple[str, ...]:
    good = isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)
    _expect(good, name, values, "a list of texts")
    return tuple(values)
