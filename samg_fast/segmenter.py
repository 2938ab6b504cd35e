"""The segmenter: a bundle opened on a backend, and SAM-G's three decodes per frame (arXiv 2312.17116)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from samg_fast import ops, reference
from samg_fast.adaptation import fit_mask_weights, jittered
from samg_fast.arrays import Frame, Mask, check_frame, check_frames, check_mask, check_points, describe
from samg_fast.backends import Backend, choose
from samg_fast.bundle import Bundle
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.frames import first_logits, segment_frames
from samg_fast.geometry import Letterbox
from samg_fast.networks import Networks
from samg_fast.results import Segmentation
from samg_fast.stopwatch import Stopwatch
from samg_fast.target import EQUAL_WEIGHTS, Target
from samg_fast.zoo import resolve

__all__ = ["Segmenter", "load"]

_log = logging.getLogger("samg_fast")

_Array = TypeVar("_Array")


def load(
    bundle: str | os.PathLike[str] = "tiny",
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Segmenter:
    """Open a bundle on a backend.

    Parameters
    ----------
    bundle : str or os.PathLike
        Name of a shipped bundle, or a bundle's folder.
    backend : str
        ``"openvino"``, ``"onnxruntime"``, or ``"auto"``: the first of these that can run. The choice is logged (logger
        ``samg_fast``, level INFO).
    precision : str
        ``"fp32"``, ``"bf16"`` (on processors that have it), ``"int8"`` (where the bundle has such files), or
        ``"auto"``: fp32.
    threads : int, optional
        CPU threads for each network; by default the backend decides.

    Returns
    -------
    Segmenter
        With every network compiled and run once, so that the first frame is as fast as the others.

    Raises
    ------
    BundleError
        There is no such bundle, or it is truncated, altered or not what its manifest says.
    BackendError, MissingExtraError
        The backend cannot run here, or is not installed.
    InputError, InputTypeError
        Another argument is not one of the above.
    """
    if not isinstance(bundle, (str, os.PathLike)):
        raise InputTypeError(f"bundle must be a name or a folder, not {type(bundle).__name__}")
    opened = Bundle.open(resolve(bundle))
    segmenter = Segmenter(opened, choose(backend, precision, threads, opened.manifest))
    _log.info("%s", segmenter.describe())
    return segmenter


class Segmenter:
    """A bundle opened on a backend; made by `load`.

    It may be used from several threads at once. Use it as a context manager, or `close` it, to free its networks early.

    Parameters
    ----------
    bundle : Bundle
        The networks and their manifest.
    backend : Backend
        What runs them.

    Raises
    ------
    BundleError
        The networks are not what the manifest says.
    BackendError
        The backend cannot run them.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend.name
        self.precision = backend.precision
        self.threads = backend.threads
        self._library = f"{backend.name} {backend.version}"
        self._networks = Networks(bundle, backend)

    def identify(
        self,
        image: Frame,
        mask: Mask,
        points: Sequence[Sequence[float]] | ArrayLike = (),
        parts: Sequence[Mask] = (),
    ) -> Target:
        """Learn what to cut out from one reference picture.

        Parameters
        ----------
        image : (H, W, 3) uint8 array
            The reference picture, RGB.
        mask : (H, W) bool array
            Where the target is in it.
        points : sequence of (x, y)
            Human points on the target, in pixels; each becomes a part.
        parts : sequence of (H, W) bool arrays
            Masks of parts of the target that must not be missed; they come before the points.

        Returns
        -------
        Target

        Raises
        ------
        InputTypeError, InputError
            An argument has another dtype, shape or range; a mask is empty or reaches no cell of the encoder's grid; or
            the decoder has too few slots for so many parts.
        """
        image = check_frame("image", image)
        masks = {"mask": mask, **_numbered("parts", parts)}
        spec = self.bundle.manifest.encoder
        cells = {
            name: ops.mask_cells(check_mask(name, given, image.shape), side=spec.side, grid=spec.grid)
            for name, given in masks.items()
        }
        return self._identify(image, cells, points, f"is too small for the encoder's {spec.grid} x {spec.grid} grid")

    def identify_masked_picture(
        self,
        image: Frame,
        masked_picture: Frame,
        points: Sequence[Sequence[float]] | ArrayLike = (),
        part_pictures: Sequence[Frame] = (),
    ) -> Target:
        """Learn what to cut out from a masked picture, read as the official code reads it.

        A cell belongs to the target where the masked picture's red, brought to the grid, is above the encoder's mean
        red; so a dark or a blue target is not found. `identify` with a boolean mask has no such limit.

        Parameters
        ----------
        image : (H, W, 3) uint8 array
            The reference picture, RGB.
        masked_picture : (H, W, 3) uint8 array
            The same picture, black outside the target.
        points : sequence of (x, y)
            Human points on the target, in pixels; each becomes a part.
        part_pictures : sequence of (H, W, 3) uint8 arrays
            Masked pictures of parts of the target; they come before the points.

        Returns
        -------
        Target

        Raises
        ------
        InputTypeError, InputError
            An argument has another dtype, shape or range; a masked picture has no cell that is red enough; or the
            decoder has too few slots for so many parts.
        """
        image = check_frame("image", image)
        pictures = {"masked_picture": masked_picture, **_numbered("part_pictures", part_pictures)}
        spec = self.bundle.manifest.encoder
        cells = {}
        for name, given in pictures.items():
            picture = check_frame(name, given)
            if picture.shape != image.shape:
                raise InputError(f"{name} must have the picture's shape {image.shape}, not {picture.shape}")
            cells[name] = ops.masked_picture_cells(picture, spec)
        return self._identify(
            image, cells, points, f"has nowhere more red than {spec.mean[0] * 255:.0f}, as the official reading asks"
        )

    def segment(self, frame: Frame, target: Target, *, trace: bool = False) -> Segmentation:
        """Cut the target out of a frame.

        Parameters
        ----------
        frame : (H, W, 3) uint8 array
            RGB, of any size.
        target : Target
            Made with this bundle.
        trace : bool
            Whether to keep what every step saw.

        Returns
        -------
        Segmentation

        Raises
        ------
        InputTypeError, InputError
            `frame` is not a uint8 RGB picture, or `target` no target.
        BundleError
            The target was made with another bundle.
        """
        frame = check_frame("frame", frame)
        self._check_target("target", target)
        return segment_frames(self._networks, frame[None], [target], trace)[0]

    def segment_batch(self, frames: Frame, target: Target | Sequence[Target]) -> list[Segmentation]:
        """Cut the target out of several frames of one size, all together.

        The openvino backend compiles the networks for each batch size it meets, which takes a while the first time.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
            RGB.
        target : Target or sequence of B Target
            One for all, or one for each.

        Returns
        -------
        list of B Segmentation
            What `segment` gives, to float32 rounding in the networks.

        Raises
        ------
        InputTypeError, InputError
            `frames` are not uint8 RGB pictures, or there is another number of targets.
        BundleError
            A target was made with another bundle.
        """
        frames = check_frames("frames", frames)
        targets = [target] * len(frames) if isinstance(target, Target) else target
        if not isinstance(targets, Sequence):
            raise InputTypeError(f"target must be a Target or a sequence of them, not {type(target).__name__}")
        if len(targets) != len(frames):
            raise InputError(
                f"target must be one Target or {len(frames)} of them, one for each frame, not {len(targets)}"
            )
        for index, each in enumerate(targets):
            self._check_target(f"target[{index}]", each)
        return segment_frames(self._networks, frames, targets, trace=False)

    def adapt(self, target: Target, image: Frame, mask: Mask, *, seed: int = 0) -> Target:
        """Learn which of the first decode's three masks to trust (PerSAM-F), from a picture and its mask.

        Parameters
        ----------
        target : Target
            Made with this bundle; human points' features are jittered while fitting.
        image : (H, W, 3) uint8 array
            The reference picture, RGB.
        mask : (H, W) bool array
            Where the target is in it.
        seed : int
            Of the jitter.

        Returns
        -------
        Target
            The target with learned mask weights.

        Raises
        ------
        InputTypeError, InputError
            `image` or `mask` has another dtype or size, or `mask` is empty.
        BundleError
            The target was made with another bundle.
        """
        self._check_target("target", target)
        image = check_frame("image", image)
        mask = check_mask("mask", mask, image.shape)
        maps = self._networks.encode(image[None], Stopwatch())
        logits = [first_logits(self._networks, maps, each) for each in jittered(target, seed=seed)]
        return replace(target, mask_weights=fit_mask_weights(np.stack(logits), mask))

    def describe(self) -> str:
        """Say in one line what runs where."""
        threads = "threads up to the backend" if self.threads is None else f"{self.threads} threads"
        return f"bundle {self.bundle.name} on {self._library}, {self.precision}, {threads}"

    def close(self) -> None:
        """Free the networks. Closing twice does no harm; using a closed segmenter raises `BackendError`."""
        self._networks.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Segmenter: {self.describe()}>"

    def _identify(
        self, image: Frame, cells: dict[str, Mask], points: Sequence[Sequence[float]] | ArrayLike, why: str
    ) -> Target:
        """Make a target of the cells of a target and its parts (by argument name, the target first), and of points."""
        manifest = self.bundle.manifest
        at = check_points("points", points, image.shape)
        parts = len(cells) - 1 + len(at)
        if parts > manifest.most_parts:
            raise InputError(
                f"points and parts are {parts} together, but bundle {self.bundle.name} has slots for "
                f"{manifest.most_parts} at most"
            )
        for name, chosen in cells.items():
            if not chosen.any():
                raise InputError(f"{name} reaches no grid cell: it {why}")
        maps = self._networks.encode(image[None], Stopwatch())
        box = Letterbox(image.shape[0], image.shape[1], manifest.encoder.side)
        cell = manifest.encoder.grid / manifest.encoder.side
        features = []
        for dense in (maps.sam[0], reference.lift(maps.dino[0], manifest.encoder.grid)):
            of_masks = [ops.mask_feature(dense, chosen) for chosen in cells.values()]
            of_points = [ops.point_feature(dense, float(x), float(y)) for x, y in box.points(at) * cell]
            features.append(np.stack(of_masks + of_points))
        sam, dino = features
        return Target(
            sam=sam[0],
            dino=dino[0],
            parts_sam=sam[1:],
            parts_dino=dino[1:],
            mask_weights=EQUAL_WEIGHTS,
            part_is_point=np.arange(parts) >= len(cells) - 1,
            bundle=self.bundle.name,
            fingerprint=self.bundle.fingerprint,
        )

    def _check_target(self, name: str, target: object) -> None:
        if not isinstance(target, Target):
            raise InputTypeError(f"{name} must be a samg_fast.Target, not {type(target).__name__}")
        if target.fingerprint != self.bundle.fingerprint:
            which = (
                f"bundle {target.bundle}"
                if target.bundle != self.bundle.name
                else f"another version of bundle {target.bundle}"
            )
            raise BundleError(
                f"{name} was made with {which}, this segmenter runs {self.bundle.name}: identify it again"
            )
        if target.parts > self.bundle.manifest.most_parts:
            most = self.bundle.manifest.most_parts
            raise InputError(
                f"{name} has {target.parts} parts, but bundle {self.bundle.name} has slots for {most} at most"
            )


def _numbered(name: str, arrays: Sequence[_Array]) -> dict[str, _Array]:
    """Name every entry of a sequence as a message should."""
    if not isinstance(arrays, Iterable):
        raise InputTypeError(f"{name} must be a sequence of arrays, not {describe(arrays)}")
    return {f"{name}[{index}]": array for index, array in enumerate(arrays)}
