"""What a segmenter is shown: references with masks, clicks and boxes, and the targets that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from samg_fast import ops
from samg_fast.across_processes import AcrossProcesses
from samg_fast.checks import Frame, Mask, check_frame, check_mask, check_points, check_whole, describe
from samg_fast.devices import process
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.pipeline.adapt import fit_mask_weights, jittered
from samg_fast.pipeline.host import first_logits
from samg_fast.pipeline.identify import identify
from samg_fast.pipeline.networks import Networks
from samg_fast.pipeline.propose import Prompts, Proposals, propose
from samg_fast.pipeline.references import (
    ReferenceImage,
    are_several,
    check_reference,
    check_references,
    numbered,
    reached,
)
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.target import Target

__all__ = ["Prompting"]

_Points = Sequence[Sequence[float]] | ArrayLike
_SomePoints = Sequence[Sequence[float] | None] | ArrayLike | None
_SomeMasks = Sequence[Mask | None] | None


class Prompting(AcrossProcesses):
    """The half of a segmenter that learns what to cut out."""

    def identify(
        self,
        image: Frame | Sequence[Frame],
        mask: Mask | Sequence[Mask] | None = None,
        points: _Points | Sequence[_SomePoints] = (),
        parts: Sequence[Mask] | Sequence[_SomeMasks] = (),
        *,
        labels: Sequence[int] | ArrayLike | None = None,
        box: Sequence[float] | ArrayLike | None = None,
    ) -> Target:
        """Learn what to cut out from one reference picture, or from several of the same target.

        Parameters
        ----------
        image : (H, W, 3) uint8 array, or (R, H, W, 3) uint8 array or sequence of R (H, W, 3) uint8 arrays
            The reference picture, RGB; or several, whose sizes may differ in a sequence.
        mask : (H, W) bool array, or (R, H, W) bool array or sequence of R (H, W) bool arrays, optional
            Where the target is in it; of several pictures, in each. Without one, it is the best of what `propose`
            makes of `points`, `labels` and `box`.
        points : sequence of (x, y), or sequence of R such sequences
            With a mask, human points on the target, in pixels, each of which becomes a part. Without one, clicks.
        parts : sequence of (H, W) bool arrays, or sequence of R such sequences
            Masks of parts of the target that must not be missed; they come before the points.
        labels, box
            Instead of a mask; see `propose`.

        Returns
        -------
        Target

        Raises
        ------
        InputTypeError, InputError
            An argument has another dtype, shape or range; a mask is empty or reaches no cell of the encoder's grid;
            the decoder has too few slots for so many parts; or, of several pictures, there is another number of masks,
            of points' or of parts' entries than of pictures, the entries have different lengths, or no picture shows
            some part. Without a mask: see `propose`; or nothing is found there, or there are several pictures.

        Notes
        -----
        With several pictures, `points` and `parts` are either empty or have one entry for each picture, which is what
        the argument would be for that picture alone. Entry k means the same part in every picture: where a picture
        hides it, it is None, and a picture that shows none of them may have ``()`` or None in place of its entry. Every
        part must be shown by one picture at least. The order of the pictures does not matter, and a sequence of one
        picture gives what that picture alone gives.
        """
        spec = self.bundle.prompted.encoder
        if mask is None:
            mask, points = self._proposed(image, points, labels, box), ()
        elif labels is not None or box is not None:
            raise InputError("labels and box say where the target is without a mask, and mask is given")
        if not are_several(image):
            return self._identify([check_reference(image, mask, points, parts, spec)])
        if getattr(mask, "ndim", None) == 2:
            raise InputError(f"image must be one (H, W, 3) picture where mask is one mask, not {describe(image)}")
        return self._identify(check_references(list(image), mask, points, parts, spec))

    def propose(
        self,
        image: Frame,
        points: _Points = (),
        labels: Sequence[int] | ArrayLike | None = None,
        box: Sequence[float] | ArrayLike | None = None,
        mask: Mask | None = None,
    ) -> Proposals:
        """Return masks of what is clicked on, as a reference's mask or to choose one from.

        It is SAM's own prompt: the decoder gets it alone, without a target. A mask that is nearly right goes back in as
        `mask`, with clicks on what is wrong.

        Parameters
        ----------
        image : (H, W, 3) uint8 array
            RGB.
        points : sequence of (x, y)
            Clicks, in pixels.
        labels : sequence of int, optional
            1 for each click on the target, 0 for each on what does not belong to it; by default all are on it.
        box : sequence of 4 float, optional
            (x_min, y_min, x_max, y_max) around the target, in pixels, corners inclusive.
        mask : (H, W) bool array, optional
            An earlier mask.

        Returns
        -------
        Proposals

        Raises
        ------
        InputTypeError, InputError
            An argument has another dtype, shape or range; a click or a corner is outside the picture; the box has no
            area; nothing is given; or there are more points than the decoder has slots for.
        BundleError
            The bundle is fitted to its target, and takes no prompts.
        """
        prompts = Prompts.check(image, points, labels, box, mask, self.bundle.prompted.slots)
        self._open_here()
        with process.CALL:
            return propose(self._prompted, prompts)

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
        spec = self.bundle.prompted.encoder
        cells = []
        for name, given in pictures.items():
            picture = check_frame(name, given)
            if picture.shape != image.shape:
                raise InputError(f"{name} must have the picture's shape {image.shape}, not {picture.shape}")
            why = f"has nowhere more red than {spec.mean[0] * 255:.0f}, as the official reading asks"
            cells.append(reached(name, ops.masked_picture_cells(picture, spec), why))
        at = check_points("points", points, image.shape)
        return self._identify([ReferenceImage(image, np.stack(cells), at)])

    def adapt(self, target: Target, image: Frame, mask: Mask, *, seed: int | None = 0) -> Target:
        """Learn which of the first decode's three masks to trust (PerSAM-F), from a picture and its mask.

        Parameters
        ----------
        target : Target
            Made with this bundle; human points' features are jittered while fitting.
        image : (H, W, 3) uint8 array
            The reference picture, RGB.
        mask : (H, W) bool array
            Where the target is in it.
        seed : int or None
            Of the jitter, 0 or more; None for another jitter with every call.

        Returns
        -------
        Target
            The target with learned mask weights.

        Raises
        ------
        InputTypeError, InputError
            `image` or `mask` has another dtype or size, `mask` is empty, or `seed` is no whole number from 0.
        BundleError
            The target was made with another bundle.
        """
        self._open_here()
        networks = self._prompted
        self.check_target(target)
        image = check_frame("image", image)
        mask = check_mask("mask", mask, image.shape)
        if seed is not None:
            seed = check_whole("seed", seed, 0, otherwise=" or None")
        targets = jittered(target, seed=seed)
        with process.CALL:
            maps = networks.encode(image[None], Stopwatch())
            logits = [first_logits(networks, maps, each) for each in targets]
        return replace(target, mask_weights=fit_mask_weights(np.stack(logits), mask))

    @property
    def needs_target(self) -> bool:
        """Whether it must be shown what to cut out; a fitted bundle need not be."""
        return self.bundle.fitted is None

    def target_for(self, image: Frame | Sequence[Frame], mask: Mask | Sequence[Mask]) -> Target | None:
        """Return what `segment` is to be shown: what `identify` learns, or None if the bundle is fitted to its target.

        Parameters
        ----------
        image, mask
            See `identify`.

        Raises
        ------
        InputTypeError, InputError
            See `identify`.
        """
        return self.identify(image, mask) if self.needs_target else None

    def check_target(self, target: object, name: str = "target") -> None:
        """Refuse what this segmenter cannot find, before the first frame; `segment` does so at every frame.

        Parameters
        ----------
        target : object
            What should be a `Target` made with this bundle; or None or its own one, if the bundle is fitted.
        name : str
            What to call it in the error.

        Raises
        ------
        InputTypeError, InputError
            It is no `Target`, or has more parts than the bundle has slots for.
        BundleError
            It was made with another bundle, or is not the one that a fitted bundle has.
        """
        fitted = self.bundle.fitted
        if fitted is not None and target is None:
            return
        if not isinstance(target, Target):
            raise InputTypeError(f"{name} must be a samg_fast.Target, not {type(target).__name__}")
        if fitted is not None:
            if target.digest != fitted.target:
                raise BundleError(
                    f"{name} is another one than bundle {self.bundle.name} is fitted to: leave it out, or fit a bundle "
                    "to it"
                )
            return
        if target.fingerprint != self.bundle.fingerprint:
            which = (
                f"bundle {target.bundle}"
                if target.bundle != self.bundle.name
                else f"another version of bundle {target.bundle}"
            )
            raise BundleError(
                f"{name} was made with {which}, this segmenter runs {self.bundle.name}: identify it again"
            )
        most = self.bundle.prompted.max_parts
        if target.parts > most:
            raise InputError(
                f"{name} has {target.parts} parts, but bundle {self.bundle.name} has slots for {most} at most"
            )

    def _check_targets(self, target: object, count: int) -> Sequence[Target | None]:
        """Return so many targets: one for all of the frames, or as many as there are frames."""
        if isinstance(target, Target) or (target is None and not self.needs_target):
            self.check_target(target)
            return [target] * count
        if not isinstance(target, Sequence):
            raise InputTypeError(f"target must be a Target or a sequence of them, not {type(target).__name__}")
        if len(target) != count:
            raise InputError(f"target must be one Target or {count} of them, one for each frame, not {len(target)}")
        for index, each in enumerate(target):
            self.check_target(each, f"target[{index}]")
        return target

    def _identify(self, references: Sequence[ReferenceImage]) -> Target:
        self._open_here()
        with process.CALL:
            return identify(self._prompted, references)

    @property
    def _prompted(self) -> Networks:
        """The networks of a bundle that is shown what to cut out; `BundleError` where it is fitted to one target."""
        _ = self.bundle.prompted
        return cast(Networks, self._networks)

    def _proposed(self, image: Any, points: Any, labels: Any, box: Any) -> Mask:
        """Return the best mask of what is clicked on."""
        if are_several(image):
            raise InputError("mask must be given where image is several pictures: propose makes one of each")
        if box is None and not np.size(points):
            raise InputError("mask, points and box are all left out: one of them must say where the target is")
        return self.propose(image, points, labels, box).found
