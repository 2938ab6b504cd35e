"""Official models on reproducible weights: the eager reference, and the bundle that is exported of the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.common import Configuration
from benchmarks.eager.frame import EagerFrame, EagerSamg
from benchmarks.eager.weights import write_checkpoint
from benchmarks.official.contenders import Contender, EagerContender, SegmenterContender
from samg_fast.bundle import MANIFEST, Bundle, sha256_of
from samg_fast.errors import BackendError, BundleError, InputError, SamgError
from samg_fast.export.models import dino_variant, sam_variant

if TYPE_CHECKING:
    from samg_fast.checks import Frame, Mask

__all__ = ["PRECISIONS", "Official"]

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What the bundle is exported in."""


class Official:
    """Two official models, and the ways to run them.

    Parameters
    ----------
    sam, dino : str
        Their names, as `samg_fast.export` takes them.
    threads : int
        CPU threads of whatever runs them; PyTorch's are set here.

    Raises
    ------
    InputError
        There is no such model.
    """

    def __init__(self, sam: str, dino: str, threads: int) -> None:
        self.sam, self.dino, self.threads = sam_variant(sam), dino_variant(dino), threads
        torch.set_num_threads(threads)
        self.eager = EagerContender(EagerSamg(self.sam, self.dino))
        self.refused: dict[str, BundleError] = {}

    def reference(self, task: int, frame: Frame) -> EagerFrame:
        """Return what the eager reference makes of a frame (H, H, 3) uint8 of a task it has identified."""
        return self.eager.samg.segment(frame, self.eager.targets[task])

    def open(self, kind: str, bundle: Path, stack: ExitStack) -> Contender:
        """Open a contender, one of `benchmarks.compare.KINDS`.

        Parameters
        ----------
        kind : str
        bundle : Path
            Folder of the exported bundle; the first two contenders need none.
        stack : ExitStack
            Closes what is opened.

        Raises
        ------
        SamgError
            It cannot run here.
        """
        if kind == "eager":
            return self.eager
        if kind == "compile":
            return _Compiled(EagerSamg(self.eager.samg.sam, self.eager.samg.dino, compiled=True))
        if kind in self.refused:
            raise self.refused[kind]
        backend, precision = ("onnxruntime", "fp32") if kind == "onnxruntime" else ("openvino", kind)
        configuration = Configuration(str(bundle), backend, precision, self.threads)
        return SegmenterContender(stack.enter_context(configuration.open()))

    def export(
        self, folder: Path | None, stack: ExitStack, kinds: Collection[str] = PRECISIONS, *, batch: int | None = 1
    ) -> Path:
        """Export the bundle of these weights, or find it there: its manifest names the checkpoints it came from.

        Parameters
        ----------
        folder : Path or None
            Of the bundle; made if it is not there. None makes one that is removed with `stack`.
        stack : ExitStack
        kinds : collection of str
            Precisions to export beside fp32; what is none is left out.
        batch : int or None
            How many frames at once it is for; None leaves that open.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            There is a bundle of other weights, or for another batch.
        SamgError
            It cannot be exported. A reduced precision that the export refuses is left out; `open` says why.
        """
        from samg_fast.export import export_bundle

        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bundle"
        with tempfile.TemporaryDirectory() as scratch:
            sam, dino = Path(scratch) / "sam.pt", Path(scratch) / "dino.pth"
            write_checkpoint(self.eager.samg.sam, sam, nested=True)
            write_checkpoint(self.eager.samg.dino, dino)
            if (folder / MANIFEST).exists():
                manifest = Bundle.open(folder).manifest
                if sha256_of(sam) not in manifest.source or sha256_of(dino) not in manifest.source:
                    raise InputError(f"{folder} is a bundle of other weights: name another folder, or remove it")
                if manifest.batch != batch:
                    raise InputError(f"{folder} is a bundle for another batch: name another folder, or remove it")
                return folder
            wanted = [each for each in PRECISIONS if each == "fp32" or each in kinds]
            while True:
                try:
                    export_bundle(self.sam, sam, self.dino, dino, folder, precision=wanted, batch=batch)
                except BundleError as error:
                    refused = next((each for each in wanted[1:] if f" at {each} " in str(error)), None)
                    if refused is None:
                        raise
                    wanted.remove(refused)
                    self.refused[refused] = error
                else:
                    return folder


class _Compiled(EagerContender):
    """The eager reference with `torch.compile`, which may fail in many ways: each becomes one BackendError here."""

    def identify(self, image: Frame, mask: Mask) -> None:
        """See `Contender`."""
        with _in_one_sentence():
            super().identify(image, mask)

    def frame(self, task: int, frame: Frame) -> dict[str, float]:
        """See `Contender`."""
        with _in_one_sentence():
            return super().frame(task, frame)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        yield
    except SamgError:
        raise
    except Exception as error:  # the compiler's, the C++ compiler's, or of what they made
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise BackendError(f"torch.compile failed: {reason}") from error
