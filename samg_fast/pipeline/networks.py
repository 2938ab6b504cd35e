"""A bundle's networks on a backend: frames in, maps and mask logits out, as SAM's predictor would have them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from samg_fast import ops
from samg_fast.backends import Network
from samg_fast.bundle import Bundle, Role
from samg_fast.checks import Box, Floats, Frame
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import BackendError, BundleError
from samg_fast.ops.geometry import Letterbox
from samg_fast.ops.reference import ResizedLogits
from samg_fast.pipeline.prompts import NEGATIVE, POSITIVE, Prompt, fill_slots
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.target import Target

__all__ = ["Maps", "Networks", "Size"]

Size = tuple[int, int]
"""(height, width) of a frame."""


class Maps(NamedTuple):
    """Raw maps of a batch of frames, good until the same thread encodes again.

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


class _Open(NamedTuple):
    encoder: Network
    features: Network | None  # None where the encoder's graph gives them
    decoder: Network


class Networks:
    """The networks of a bundle, ready to run from several threads at once.

    Parameters
    ----------
    bundle : Bundle
        Whose manifest says what the networks take and give.
    networks : mapping of Role to Network
        Open networks; without ``"features"`` where the encoder's graph gives them.
    threads : int or None
        CPU threads for the kernels between them; None for as many as this process may use.
    max_batch : int, optional
        The most frames that the networks take at once; None for any number.

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
        self.bundle = bundle
        self._manifest = bundle.manifest
        self._local = threading.local()
        self._device = Cpu(threads)
        self._most = bundle.manifest.batch or max_batch
        self._open: _Open | None = _Open(networks["encoder"], networks.get("features"), networks["decoder"])
        self._check()

    @property
    def most(self) -> int | None:
        """The most frames that may be encoded at once; None for any number."""
        return self._most

    @property
    def opened(self) -> tuple[Network, Network | None, Network]:
        """Encoder, features and decoder; None where the encoder's graph gives the features.

        Raises
        ------
        BackendError
            They were closed.
        """
        return self._networks()

    def close(self) -> None:
        """Free the networks."""
        self._open = None
        self._local = threading.local()

    def encode(self, frames: Frame, clock: Stopwatch) -> Maps:
        """Run the image networks.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
            No more than `most`.
        clock : Stopwatch
            Gets the laps preprocess, encoder and features.

        Returns
        -------
        Maps
            Of all frames that the graphs take at once: those beyond B are the last frame again.
        """
        networks, manifest = self._networks(), self._manifest
        size = (frames.shape[1], frames.shape[2])
        if manifest.batch is not None and len(frames) < manifest.batch:
            frames = np.concatenate((frames, np.repeat(frames[-1:], manifest.batch - len(frames), axis=0)))
        specs = [manifest.encoder] if networks.features is None else [manifest.encoder, manifest.features]
        shapes = [(len(frames), 3, spec.side, spec.side) for spec in specs]
        images = [self._kept(f"image {index}", shape) for index, shape in enumerate(shapes)]
        ops.preprocess(frames, specs, out=images, device=self._device)
        clock.lap("preprocess")
        outputs = networks.encoder(image=images[0])
        sam = outputs[manifest.encoder.output]
        clock.lap("encoder")
        if networks.features is None:
            return Maps(sam, outputs[manifest.features.output], size)
        dino = networks.features(image=images[1])[manifest.features.output]
        clock.lap("features")
        return Maps(sam, dino, size)

    def similarity(self, maps: Maps, index: int, target: Target) -> Floats:
        """Similarity of a target, then of each of its parts, with one frame of the maps: (1 + K, H, W) float32."""
        return ops.similarity_map(
            target.all_sam,
            target.all_dino,
            maps.sam[index],
            maps.dino[index],
            prompt_side=self._manifest.prompt_side,
            height=maps.size[0],
            width=maps.size[1],
            device=self._device,
        )

    def decode(self, maps: Maps, prompts: Sequence[Prompt], mask_input: Floats | None) -> tuple[Floats, Floats]:
        """Run the decoder on one prompt per frame.

        SAM's first mask, which is for unambiguous prompts, plays no part in SAM-G and is left out.

        Parameters
        ----------
        maps : Maps
        prompts : sequence of B Prompt
            For the first B frames of the maps.
        mask_input : (B, 4G, 4G) float32 array or None
            Logits of an earlier decode.

        Returns
        -------
        low_res : (B, 3, 4G, 4G) float32 array
            Logits, good until the same thread decodes again.
        iou : (B, 3) float32 array
            Predicted IoU, likewise.
        """
        manifest, count, full = self._manifest, len(prompts), len(maps.sam)
        if count < full:
            prompts = [*prompts, *[prompts[-1]] * (full - count)]
            if mask_input is not None:
                mask_input = np.concatenate((mask_input, np.repeat(mask_input[-1:], full - count, axis=0)))
        coords, labels = fill_slots(prompts, Letterbox(*maps.size, manifest.prompt_side), manifest.slots, self._device)
        outputs = self._networks().decoder(
            embedding=maps.sam,
            point_coords=coords,
            point_labels=labels,
            mask_input=self._no_mask(full) if mask_input is None else mask_input[:, None],
            has_mask_input=np.full(full, mask_input is not None, np.float32),
        )
        return outputs["low_res_masks"][:count, 1:], outputs["iou"][:count, 1:]

    def resize_logits(
        self, low_res: Floats, size: Size, *, weights: Floats | None = None, iou: Floats | None = None
    ) -> ResizedLogits:
        """Make one mask of each frame's, (B, M, 4G, 4G), and bring it to the frame; see `ops.resize_logits`."""
        return ops.resize_logits(
            low_res,
            weights=weights,
            iou=iou,
            prompt_side=self._manifest.prompt_side,
            height=size[0],
            width=size[1],
            device=self._device,
        )

    def to_frame(self, low_res: Floats, size: Size) -> Floats:
        """Bring the logits of several masks (M, 4G, 4G) to the frame, each by itself, (M, H, W)."""
        return self.resize_logits(low_res[:, None], size, weights=np.ones((len(low_res), 1), np.float32)).logits

    def point(self, similarity: Floats, *, largest: bool, box: Box | None = None) -> list[tuple[int, int]]:
        """Find the most or least similar point of each of some maps (K, H, W), inside a box; see `ops.topk_points`."""
        points = ops.topk_points(similarity, 1, largest, box, device=self._device)
        return [(x, y) for x, y in points[:, 0].tolist()]

    def _networks(self) -> _Open:
        if self._open is None:
            raise BackendError("this segmenter is closed; load the bundle again")
        return self._open

    def _no_mask(self, count: int) -> Floats:
        side = 4 * self._manifest.encoder.grid
        return self._kept("no mask", (count, 1, side, side))  # zeros, never written

    def _kept(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Return this thread's array of that name, kept as long as its shape stays: backends bind it only once."""
        arrays: dict[str, Floats] = self._local.__dict__
        if name not in arrays or arrays[name].shape != shape:
            arrays[name] = np.zeros(shape, np.float32)
        return arrays[name]

    def _check(self) -> None:
        """Run every network once: outputs must be there and have the shapes that the manifest promises."""
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
            low_res, iou = self.decode(maps, [Prompt(((0, 0), (0, 0)), (POSITIVE, NEGATIVE))], None)
        except MemoryError:
            raise self._error("maps of the sizes it names do not fit into memory") from None
        except KeyError as error:
            raise self._error(f"a network has no output named {error}") from None
        side = 4 * manifest.encoder.grid
        self._check_shape("decoder's low_res_masks without the first", low_res, (1, 3, side, side))
        self._check_shape("decoder's iou without the first", iou, (1, 3))

    def _check_shape(self, what: str, array: Any, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise self._error(f"the {what} has shape {array.shape}, expected {shape}")

    def _error(self, what: str) -> BundleError:
        return BundleError(f"bundle {self.bundle.name} is not what its manifest says: {what}")
