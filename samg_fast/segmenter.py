"""The segmenter: a bundle opened on a backend, and SAM-G's three decodes per frame (arXiv 2312.17116)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike

from samg_fast import ops, reference
from samg_fast.adaptation import fit_mask_weights, jittered
from samg_fast.arrays import Floats, Frame, Mask, check_frame, check_frames, check_mask, check_points, describe
from samg_fast.backends import Backend, choose
from samg_fast.bundle import Bundle
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.frames import first_logits, segment_frames
from samg_fast.geometry import Letterbox
from samg_fast.networks import Networks
from samg_fast.reference_pictures import ReferencePicture, are_several, numbered, reached, see_picture, see_pictures
from samg_fast.results import Segmentation
from samg_fast.stopwatch import Stopwatch
from samg_fast.target import EQUAL_WEIGHTS, Target
from samg_fast.zoo import resolve

__all__ = ["Segmenter", "load"]

_log = logging.getLogger("samg_fast")

_Points = Sequence[Sequence[float]] | ArrayLike
_SomePoints = Sequence[Sequence[float] | None] | ArrayLike | None
_SomeMasks = Sequence[Mask | None] | None


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
        CPU threads for each network and for the kernels between them; by default the backend decides, and the kernels
        use as many as this process may.

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
        image: Frame | Sequence[Frame],
        mask: Mask | Sequence[Mask],
        points: _Points | Sequence[_SomePoints] = (),
        parts: Sequence[Mask] | Sequence[_SomeMasks] = (),
    ) -> Target:
        """Learn what to cut out from one reference picture, or from several of the same target.

        Parameters
        ----------
        image : (H, W, 3) uint8 array, or (R, H, W, 3) uint8 array or sequence of R (H, W, 3) uint8 arrays
            The reference picture, RGB; or several, whose sizes may differ in a sequence.
        mask : (H, W) bool array, or (R, H, W) bool array or sequence of R (H, W) bool arrays
            Where the target is in it; of several pictures, in each.
        points : sequence of (x, y), or sequence of R such sequences
            Human points on the target, in pixels; each becomes a part.
        parts : sequence of (H, W) bool arrays, or sequence of R such sequences
            Masks of parts of the target that must not be missed; they come before the points.

        Returns
        -------
        Target

        Raises
        ------
        InputTypeError, InputError
            An argument has another dtype, shape or range; a mask is empty or reaches no cell of the encoder's grid;
            the decoder has too few slots for so many parts; or, of several pictures, there is another number of masks,
            of points' or of parts' entries than of pictures, the entries have different lengths, or no picture shows
            some part.

        Notes
        -----
        With several pictures, `points` and `parts` are either empty or have one entry for each picture, which is what
        the argument would be for that picture alone. Entry k means the same part in every picture: where a picture
        hides it, it is None, and a picture that shows none of them may have ``()`` or None in place of its entry. Every
        part must be shown by one picture at least. The order of the pictures does not matter, and a sequence of one
        picture gives what that picture alone gives.
        """
        if not are_several(image):
            return self._identify([see_picture(image, mask, points, parts, self.bundle.manifest.encoder)])
        if getattr(mask, "ndim", None) == 2:
            raise InputError(f"image must be one (H, W, 3) picture where mask is one mask, not {describe(image)}")
        return self._identify(see_pictures(list(image), mask, points, parts, self.bundle.manifest.encoder))

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
        pictures = {"masked_picture": masked_picture, **numbered("part_pictures", part_pictures)}
        spec = self.bundle.manifest.encoder
        cells = []
        for name, given in pictures.items():
            picture = check_frame(name, given)
            if picture.shape != image.shape:
                raise InputError(f"{name} must have the picture's shape {image.shape}, not {picture.shape}")
            why = f"has nowhere more red than {spec.mean[0] * 255:.0f}, as the official reading asks"
            cells.append(reached(name, ops.masked_picture_cells(picture, spec), why))
        at = check_points("points", points, image.shape)
        return self._identify([ReferencePicture(image, np.stack(cells), at)])

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

        The openvino backend compiles the networks for each batch size it meets, which takes a while the first time. A
        bundle exported for a fixed batch is given so many frames at once, whatever comes.

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
        most = self._networks.most or len(frames)
        return [
            each
            for first in range(0, len(frames), most)
            for each in segment_frames(
                self._networks, frames[first : first + most], targets[first : first + most], trace=False
            )
        ]

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

    def _dense(self, image: Frame) -> tuple[Floats, Floats]:
        """Encode a picture: both raw maps, on one grid and for keeps."""
        maps = self._networks.encode(image[None], Stopwatch())
        return maps.sam[0].copy(), reference.lift(maps.dino[0], self.bundle.manifest.encoder.grid)

    def _identify(self, references: Sequence[ReferencePicture]) -> Target:
        """Make a target of what one or more pictures show, each of the same parts."""
        manifest = self.bundle.manifest
        spec = manifest.encoder
        cells = np.stack([each.cells for each in references], axis=1)
        boxes = [Letterbox(each.image.shape[0], each.image.shape[1], spec.side) for each in references]
        at = np.stack([box.points(each.points) for box, each in zip(boxes, references, strict=True)], axis=1)
        at *= spec.grid / spec.side
        shown = ~np.isnan(at[..., 0])
        parts = len(cells) - 1 + len(at)
        if parts > manifest.most_parts:
            raise InputError(
                f"points and parts are {parts} together, but bundle {self.bundle.name} has slots for "
                f"{manifest.most_parts} at most"
            )
        features = []
        for maps in zip(*(self._dense(each.image) for each in references), strict=True):
            dense = np.stack(maps)
            of_masks = [ops.mask_feature(dense, chosen) for chosen in cells]
            of_points = [ops.point_feature(dense[on], *xy[on].T) for xy, on in zip(at, shown, strict=True)]
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
