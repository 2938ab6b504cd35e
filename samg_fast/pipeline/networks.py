"""A bundle's networks on a backend, run as SAM's predictor runs them: from frames to maps, from points to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.backends import Network
from samg_fast.bundle import Bundle, Role
from samg_fast.checks import Floats, Frame
from samg_fast.ops.geometry import Letterbox
from samg_fast.ops.reference import ResizedLogits
from samg_fast.pipeline.opened import OpenNetworks
from samg_fast.pipeline.schedule import PointSlots, point_slots
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.target import Target

__all__ = ["Maps", "Networks", "Size"]

Size = tuple[int, int]
"""(height, width) of a frame."""


class Maps(NamedTuple):
    """Raw maps of a batch of frames, valid until the same thread encodes again.

    Parameters
    ----------
    sam : (B, C1, G, G) float32 array
        The encoder's, which is also what the decoder reads.
    dino : (B, C2, g, g) float32 array
        The features'.
    size : tuple of int
        Height and width of the frames.
    """

    sam: Floats
    dino: Floats
    size: Size


class Networks(OpenNetworks):
    """The networks of a bundle that is shown what to cut out.

    Parameters
    ----------
    bundle, networks, threads, max_batch
        See `OpenNetworks`; without ``"features"`` where the encoder's graph gives them.

    Raises
    ------
    BundleError
        The networks are not what the manifest says.
    BackendError
        A network fails.
    """

    def __init__(
        self, bundle: Bundle, networks: Mapping[Role, Network], threads: int | None, max_batch: int | None = None
    ) -> None:
        super().__init__(bundle, networks, threads, max_batch)
        self._manifest = bundle.prompted
        self._check()

    def encode(self, frames: Frame, clock: Stopwatch) -> Maps:
        """Run the image networks.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
            No more than `max_batch`.
        clock : Stopwatch
            Gets the laps preprocess, encoder and features.

        Returns
        -------
        Maps
            Of B frames, or of as many as the graphs are fixed to: the last frame is repeated.
        """
        networks, manifest = self.opened, self._manifest
        size = (frames.shape[1], frames.shape[2])
        frames = self._filled(frames)
        specs = [manifest.encoder, manifest.features] if "features" in networks else [manifest.encoder]
        shapes = [(len(frames), 3, spec.side, spec.side) for spec in specs]
        images = [self._kept(f"image {index}", shape) for index, shape in enumerate(shapes)]
        ops.preprocess(frames, specs, out=images, device=self.device)
        clock.lap("preprocess")
        outputs = networks["encoder"](image=images[0])
        sam = self._finite("encoder", outputs[manifest.encoder.output])
        clock.lap("encoder")
        if "features" not in networks:
            return Maps(sam, self._finite("encoder", outputs[manifest.features.output]), size)
        dino = self._finite("features", networks["features"](image=images[1])[manifest.features.output])
        clock.lap("features")
        return Maps(sam, dino, size)

    def repeat(self, maps: Maps, objects: int) -> Maps:
        """Return the maps of every frame so many times, (B * objects, …), valid until the same thread does so again."""
        dense = []
        for name, each in (("sam", maps.sam), ("dino", maps.dino)):
            kept = self._kept(f"{name} of objects", (len(each) * objects, *each.shape[1:]))
            kept.reshape(len(each), objects, *each.shape[1:])[:] = each[:, None]
            dense.append(kept)
        return Maps(dense[0], dense[1], maps.size)

    def similarity(self, maps: Maps, targets: Sequence[Target]) -> Floats:
        """Return the similarity of frames with their targets, and with the parts of these.

        Parameters
        ----------
        maps : Maps
        targets : sequence of B Target
            For the first B frames of the maps.

        Returns
        -------
        (B, 1 + K, H, W) float32 array
            K is the largest number of parts that a target has; the maps of parts that others lack are 0.
        """
        (first, *others), (height, width) = targets, maps.size
        side, device = self._manifest.prompt_side, self.device
        sam, dino = maps.sam[: len(targets)], maps.dino[: len(targets)]
        if all(other is first for other in others):
            return ops.similarity_map(
                first.all_sam, first.all_dino, sam, dino, prompt_side=side, height=height, width=width, device=device
            )
        similarity = np.zeros((len(targets), 1 + max([each.parts for each in targets]), height, width), np.float32)
        for index, target in enumerate(targets):
            ops.similarity_map(
                target.all_sam,
                target.all_dino,
                sam[index],
                dino[index],
                prompt_side=side,
                height=height,
                width=width,
                out=similarity[index, : 1 + target.parts],
                device=device,
            )
        return similarity

    def decode(
        self,
        maps: Maps,
        points: NDArray[np.int32],
        slots: PointSlots,
        box: NDArray[np.int32] | None = None,
        mask_input: Floats | None = None,
        *,
        features: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Run the decoder on one prompt for each frame.

        SAM's first mask, which is for unambiguous prompts, plays no part in SAM-G and is left out.

        Parameters
        ----------
        maps : Maps
        points : (n, 2) int32 array
            Points of all frames, in pixels.
        slots : PointSlots
            Which of them are those of the first B frames of the maps, and their labels.
        box : (B, 4) int32 array, optional
            (x_min, y_min, x_max, y_max), in pixels.
        mask_input : (B, 4G, 4G) float32 array, optional
            Logits of an earlier decode.
        features : (B, C1) float32 array, optional
            The targets' features in the embedding, for a decoder that takes them.

        Returns
        -------
        low_res : (B, 3, 4G, 4G) float32 array
            Logits, valid until the same thread decodes again.
        iou : (B, 3) float32 array
            Predicted IoU, likewise.
        """
        manifest, count, full = self._manifest, len(slots.order), len(maps.sam)
        letterbox, side = Letterbox(*maps.size, manifest.prompt_side), 4 * manifest.encoder.grid
        coords = self._kept("point coords", (full, manifest.slots, 2))
        labels = self._kept("point labels", (full, manifest.slots))
        logits = self._kept("mask input", (full, 1, side, side))
        has_logits = self._kept("has mask input", (full,))
        ops.prompt_assembly(
            points,
            slots.order,
            slots.labels,
            box,
            scale=(letterbox.scale_x, letterbox.scale_y),
            slots=manifest.slots,
            out=(coords[:count], labels[:count]),
            device=self.device,
        )
        logits[:count, 0] = 0 if mask_input is None else mask_input
        has_logits[:] = mask_input is not None
        inputs = {"point_coords": coords, "point_labels": labels, "mask_input": logits}
        if manifest.decoder.target:
            inputs["target"] = self._kept("target", (full, manifest.encoder.channels))
            inputs["target"][:count] = 0 if features is None else features
        if count < full:  # the last frame again, as in the maps
            for array in inputs.values():
                array[count:] = array[count - 1]
        outputs = self.opened["decoder"](embedding=maps.sam, has_mask_input=has_logits, **inputs)
        low_res, iou = (self._finite("decoder", outputs[name]) for name in ("low_res_masks", "iou"))
        return low_res[:count, 1:], iou[:count, 1:]

    def resize_logits(
        self, low_res: Floats, size: Size, *, weights: Floats | None = None, iou: Floats | None = None
    ) -> ResizedLogits:
        """Make one mask of each frame's M masks (B, M, 4G, 4G), at the frame's size; see `ops.resize_logits`."""
        return ops.resize_logits(
            low_res,
            weights=weights,
            iou=iou,
            prompt_side=self._manifest.prompt_side,
            height=size[0],
            width=size[1],
            device=self.device,
        )

    def to_frame(self, low_res: Floats, size: Size) -> Floats:
        """Bring the logits of M masks (M, 4G, 4G) to the frame, each by itself: (M, H, W)."""
        return self.resize_logits(low_res[:, None], size, weights=np.ones((len(low_res), 1), np.float32)).logits

    def _check(self) -> None:
        """Run every network once, and check that its outputs have the names and shapes that the manifest states."""
        manifest = self._manifest
        if manifest.max_parts < 0:
            raise self._error(f"it has {manifest.slots} slots, and a target without parts needs 6")
        try:
            maps = self.encode(np.zeros((1, 8, 8, 3), np.uint8), Stopwatch())
            for role, dense, spec in (
                ("encoder", maps.sam, manifest.encoder),
                ("features", maps.dino, manifest.features),
            ):
                batch = manifest.batch or 1
                self._check_shape(f"{role}'s {spec.output}", dense, (batch, spec.channels, spec.grid, spec.grid))
            low_res, iou = self.decode(maps, np.zeros((2, 2), np.int32), point_slots((0,))[0])
        except MemoryError:
            raise self._error("maps of the sizes it names do not fit into memory") from None
        except KeyError as error:
            raise self._error(f"a network has no output named {error}") from None
        side = 4 * manifest.encoder.grid
        self._check_shape("decoder's low_res_masks without the first", low_res, (1, 3, side, side))
        self._check_shape("decoder's iou without the first", iou, (1, 3))
