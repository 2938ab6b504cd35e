"""The segmenter: a bundle opened on a backend.

A frame is SAM-G's three decodes (arXiv 2312.17116), or the one network of a bundle that is fitted to its target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from samg_fast.backends import DeviceNetwork, GpuRuntime, Network, Runtime
from samg_fast.bundle import Bundle, Role
from samg_fast.checks import Frame, check_frame, check_frames
from samg_fast.devices import process
from samg_fast.errors import InputError, InputTypeError
from samg_fast.objects import Objects, check_objects, gathered
from samg_fast.pipeline.fitted import FittedNetwork
from samg_fast.pipeline.gpu.results import GpuSegmentation, GpuSegmentations
from samg_fast.pipeline.gpu.runner import GpuFrames, is_on_gpu
from samg_fast.pipeline.host import segment_frames
from samg_fast.pipeline.networks import Networks
from samg_fast.prompting import Prompting
from samg_fast.results import Segmentation
from samg_fast.target import Target

if TYPE_CHECKING:
    from samg_fast.devices.cuda import Cuda

__all__ = ["Segmenter"]

_FRAMES_A_THREAD = 16
"""Frames for each thread that go through the networks on a processor at once: more are no faster, and need memory."""


class Segmenter(Prompting):
    """A bundle whose networks are open; `samg_fast.load` makes one.

    It may be used from several threads at once. Use it as a context manager, or `close` it, to free its networks early.

    It may be pickled, and used in processes that are forked from this one: there the bundle is opened anew, on the same
    backend, at the same precision, with the same threads. `copy.deepcopy` gives the segmenter itself.

    Parameters
    ----------
    bundle : Bundle
        The networks' manifest.
    runtime : Runtime
        What runs the networks: its name, version, precision and threads; and its GPU, if it is a `GpuRuntime`.
    networks : mapping of Role to Network
        Open networks; without ``"features"`` where the encoder's graph gives them.
    reopen : callable, optional
        Makes this segmenter again in another process, and can be pickled. Without one, a segmenter can neither be
        pickled nor used in a process that is forked from this one. `samg_fast.load` gives one.

    Attributes
    ----------
    bundle : Bundle
    backend, precision, device : str
        What runs where: device is ``"cpu"`` or ``"cuda:0"`` and so on.
    threads : int or None
        CPU threads for each network; None leaves it to the backend.

    Raises
    ------
    BundleError
        The networks are not what the manifest says.
    BackendError
        The backend cannot run them.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        networks: Mapping[Role, Network],
        *,
        reopen: Callable[[], Segmenter] | None = None,
    ) -> None:
        super().__init__(reopen)
        self.bundle = bundle
        self.backend = runtime.name
        self.precision = runtime.precision
        self.threads = runtime.threads
        self._library = f"{runtime.name} {runtime.version}"
        max_batch = runtime.max_batch if isinstance(runtime, GpuRuntime) else None
        self.device = "cpu"
        self._on_gpu: GpuFrames | None = None
        self._where = "threads up to the backend" if self.threads is None else f"{self.threads} threads"
        with process.CALL:
            self._networks: Networks | FittedNetwork = _open(bundle, networks, runtime.threads, max_batch)
            process.keep_in_children(self)
            if isinstance(runtime, GpuRuntime):
                self.device, self._where = f"cuda:{runtime.cuda.device_id}", runtime.cuda.model
                self._on_gpu = _gpu_frames(self._networks, runtime.cuda)

    @overload
    def segment(self, frame: Frame, target: Target | None = None, *, trace: bool = False) -> Segmentation: ...

    @overload
    def segment(self, frame: Frame, target: Mapping[str, Target], *, trace: bool = False) -> Objects: ...

    @overload
    def segment(self, frame: Any, target: Target | None = None, *, stream: Any = None) -> GpuSegmentation: ...

    def segment(
        self,
        frame: Any,
        target: Target | Mapping[str, Target] | None = None,
        *,
        trace: bool = False,
        stream: Any = None,
    ) -> Segmentation | Objects | GpuSegmentation:
        """Cut the target out of a frame, or several of them.

        Parameters
        ----------
        frame : (H, W, 3) uint8 array
            RGB, of any size. An array in the memory of the segmenter's GPU (DLPack or ``__cuda_array_interface__``)
            stays there, and so does what comes out.
        target : Target or mapping of str to Target, optional
            Made with this bundle. A fitted bundle needs none: it has its own, and accepts no other. Of several named
            objects the frame is encoded once (on a GPU, and by a bundle for a fixed batch, once for each).
        trace : bool
            Whether to keep what every step saw. On a GPU the steps between the networks then run on the host. A fitted
            bundle has one step, and nothing to keep.
        stream : stream, optional
            For a frame on a GPU, the caller's CUDA stream (``torch.cuda.current_stream()``, for one): the frame comes
            after what it holds, what it gets later comes after the frame, and this call does not wait. The frame must
            be kept, and left as it is, until the stream has come that far. Without one, the call returns when the frame
            is done.

        Returns
        -------
        Segmentation
            Or `Objects`, of several named ones; or `samg_fast.pipeline.gpu.results.GpuSegmentation`, of a frame on a
            GPU.

        Raises
        ------
        InputTypeError, InputError
            `frame` is not a uint8 RGB picture, or not on the segmenter's device, or `target` is no target; or several
            are named for a frame on a GPU.
        BundleError
            The target was made with another bundle, or is not the one that a fitted bundle has; or `trace` is asked of
            a fitted bundle.
        """
        self._open_here()
        if isinstance(target, Mapping):
            frame = self._on_host("frame", frame, stream)
            return self._segment_objects(check_frame("frame", frame)[None], target, trace)[0]
        self.check_target(target)
        if trace:
            _ = self.bundle.prompted
        if is_on_gpu(frame):
            return self._segment_on_gpu("frame", frame, [target], trace, stream)[0]
        frame = check_frame("frame", frame)
        _check_no_stream(stream)
        if self._on_gpu is not None and not trace:
            return self._on_gpu.segment(frame[None], [target])[0]
        return self._segment_on_host(frame[None], [target], trace)[0]

    @overload
    def segment_batch(
        self, frames: Frame, target: Target | Sequence[Target | None] | None = None
    ) -> list[Segmentation]: ...

    @overload
    def segment_batch(self, frames: Frame, target: Mapping[str, Target]) -> list[Objects]: ...

    @overload
    def segment_batch(
        self, frames: Any, target: Target | Sequence[Target | None] | None = None, *, stream: Any = None
    ) -> GpuSegmentations: ...

    def segment_batch(
        self,
        frames: Any,
        target: Target | Sequence[Target | None] | Mapping[str, Target] | None = None,
        *,
        stream: Any = None,
    ) -> list[Segmentation] | list[Objects] | GpuSegmentations:
        """Cut the target out of several frames of one size, all together.

        The openvino backend compiles the networks for each batch size it meets, which takes a while the first time. A
        bundle exported for a fixed batch is given so many frames at once, whatever comes.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
            RGB; on the host, or in the memory of the segmenter's GPU, as in `segment`.
        target : Target, sequence of B Target or mapping of str to Target, optional
            One for all, or one for each; or several named objects in every frame, as in `segment`. A fitted bundle
            needs none.
        stream : stream, optional
            For frames on a GPU; see `segment`.

        Returns
        -------
        list of B Segmentation
            What `segment` gives, to float32 rounding in the networks; `Objects` of named ones. Of frames on a GPU,
            `samg_fast.pipeline.gpu.results.GpuSegmentations`.

        Raises
        ------
        InputTypeError, InputError
            `frames` are not uint8 RGB pictures, there is another number of targets, or there are more frames in a GPU's
            memory than its networks take at once.
        BundleError
            A target was made with another bundle, or is not the one that a fitted bundle has.
        """
        self._open_here()
        if isinstance(target, Mapping):
            return self._segment_objects(check_frames("frames", self._on_host("frames", frames, stream)), target)
        on_gpu = is_on_gpu(frames)
        if not on_gpu:
            frames = check_frames("frames", frames)
            _check_no_stream(stream)
        count = len(frames) if not on_gpu else int(frames.shape[0])
        targets = self._check_targets(target, count)
        if on_gpu:
            return self._segment_on_gpu("frames", frames, targets, False, stream)
        parts = self._parts(count)
        if self._on_gpu is not None:
            return [each for part in parts for each in self._on_gpu.segment(frames[part], targets[part])]
        return [each for part in parts for each in self._segment_on_host(frames[part], targets[part], trace=False)]

    def describe(self) -> str:
        """Say in one line what runs where."""
        return f"bundle {self.bundle.name} on {self._library}, {self.precision}, {self._where}"

    def close(self) -> None:
        """Free the networks. Closing twice does no harm; using a closed segmenter raises `BackendError`."""
        self._leave_inherited()
        if self._on_gpu is not None and self._is_here:
            self._on_gpu.close()
        self._networks.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Segmenter: {self.describe()}>"

    def _segment_on_host(self, frames: Frame, targets: Sequence[Target | None], trace: bool) -> list[Segmentation]:
        with process.CALL:
            if isinstance(self._networks, FittedNetwork):
                return self._networks.segment(frames)
            return segment_frames(self._networks, frames, cast("Sequence[Target]", targets), trace)

    def _parts(self, count: int, objects: int = 1) -> list[slice]:
        """Divide so many frames into as many as go through the networks at once, each with so many objects."""
        at_once = self._networks.max_batch or (
            count if self._on_gpu else _FRAMES_A_THREAD * self._networks.device.threads
        )
        step = max(1, at_once // objects)
        return [slice(first, first + step) for first in range(0, count, step)]

    def _segment_objects(self, frames: Frame, target: Mapping[str, Target], trace: bool = False) -> list[Objects]:
        """Segment several objects in every frame."""
        _ = self.bundle.prompted
        named = check_objects(target)
        for name, each in named.items():
            self.check_target(each, f"target[{name!r}]")
        count, targets = len(named), list(named.values())
        if self._on_gpu is None and self._networks.max_batch is None:
            found: list[Segmentation] = []
            with process.CALL:
                for part in self._parts(len(frames), count):
                    some = frames[part]
                    found += segment_frames(self._prompted, some, targets * len(some), trace, objects=count)
        elif trace:
            found = [self.segment(frame, each, trace=True) for frame in frames for each in targets]
        else:
            found = self.segment_batch(np.repeat(frames, count, axis=0), targets * len(frames))
        return gathered(named, found)

    def _on_host(self, name: str, frames: Any, stream: Any) -> Any:
        """Refuse what is in a GPU's memory."""
        if is_on_gpu(frames):
            raise InputError(f"{name} is in a GPU's memory, where one target is found at a time: copy it to the host")
        _check_no_stream(stream)
        return frames

    def _segment_on_gpu(
        self, name: str, frames: Any, targets: Sequence[Target | None], trace: bool, stream: Any
    ) -> GpuSegmentations:
        """Segment a frame, or a batch of them, that is in a GPU's memory."""
        if self._on_gpu is None:
            raise InputTypeError(
                f"{name} is in a GPU's memory, but this segmenter runs on the processor: copy it to the host, or load "
                "the bundle on a GPU"
            )
        if trace:
            raise InputError(f"trace is for frames on the host, and {name} is in a GPU's memory")
        return self._on_gpu.segment_on_gpu(name, frames, 3 if name == "frame" else 4, targets, stream)


def _open(
    bundle: Bundle, networks: Mapping[Role, Network], threads: int | None, max_batch: int | None
) -> Networks | FittedNetwork:
    if bundle.fitted is not None:
        return FittedNetwork(bundle, bundle.fitted, networks, threads, max_batch)
    return Networks(bundle, networks, threads, max_batch)


def _gpu_frames(networks: Networks | FittedNetwork, cuda: Cuda) -> GpuFrames:
    opened = cast("Mapping[Role, DeviceNetwork]", networks.opened)
    return GpuFrames(networks.bundle.manifest, opened, cuda, networks.max_batch)


def _check_no_stream(stream: object) -> None:
    if stream is not None:
        raise InputError("stream is for frames in a GPU's memory, and these are on the host")
