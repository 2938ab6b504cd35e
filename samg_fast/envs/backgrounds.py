"""Moving backgrounds: video clips from a folder, and the procedural ones of `samg_fast.envs.procedural`.

A clip is anything with ``frame(t)``; it loops for ever, so that an episode may be of any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.envs.procedural import ProceduralClip, procedural_clip
from samg_fast.envs.settings import clip_folder
from samg_fast.errors import FileError, InputError, InputTypeError

__all__ = ["Clip", "ClipFolder", "FileClip", "ProceduralClip", "VideoClip", "find_clips", "load_clips"]
__all__ += ["open_clips", "procedural_clip"]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


class Clip(Protocol):
    """A background that moves."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return picture ``t`` (any t ≥ 0; clips loop) as (h, w, 3) uint8."""
        ...


@dataclass(frozen=True)
class VideoClip:
    """A clip whose pictures are in memory.

    Attributes
    ----------
    name : str
        Where it came from.
    frames : (n, h, w, 3) uint8
    """

    name: str
    frames: NDArray[np.uint8]

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return picture ``t`` modulo the clip's length, (h, w, 3) uint8."""
        picture: NDArray[np.uint8] = self.frames[t % len(self.frames)]
        return picture


def load_clips(
    folder: str | Path,
    names: Sequence[str] | None = None,
    *,
    size: tuple[int, int] | None = None,
    stride: int = 1,
    limit: int | None = None,
) -> list[VideoClip]:
    """Read the video files of a folder.

    Parameters
    ----------
    folder : path
        Searched itself, not its subfolders.
    names : sequence of str, optional
        File names, with or without suffix, in the order wanted; all files in alphabetical order by default.
    size : (height, width), optional
        Bring every picture to this size while reading, which saves memory.
    stride : int
        Keep every ``stride``-th picture.
    limit : int, optional
        Keep at most so many pictures of a clip.

    Returns
    -------
    list of VideoClip

    Raises
    ------
    InputError
        The folder has no video, or not the one named.
    FileError
        A file cannot be decoded.
    """
    folder = Path(folder)
    files = {path.name: path for path in _video_files(folder)}
    if names is None:
        chosen: Iterable[Path] = files.values()
    else:
        by_stem = {path.stem: path for path in files.values()}
        missing = [name for name in names if name not in files and name not in by_stem]
        if missing:
            raise InputError(f"clips: {', '.join(missing)} not in {folder}, which has {', '.join(files)}")
        chosen = [files.get(name) or by_stem[name] for name in names]
    return [VideoClip(path.stem, _decode(path, size, stride, limit)) for path in chosen]


class FileClip:
    """A video file that is read as far as it is shown, and then kept.

    Parameters
    ----------
    path : path
    size : (height, width)
        Of the pictures, to which they are brought while they are read.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.name = path.stem
        self._frames: list[NDArray[np.uint8]] = []
        self._broken = ""
        self._rest: Iterator[NDArray[np.uint8]] | None = _pictures(path, size)

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return picture ``t`` modulo the clip's length, (h, w, 3) uint8; `FileError` where it cannot be decoded."""
        while self._rest is not None and t >= len(self._frames):
            if self._broken:  # what came before is no whole clip to loop over
                raise FileError(self._broken)
            try:
                picture = next(self._rest, None)
            except FileError as error:
                self._broken = str(error)
                raise
            if picture is None:
                self._rest = None
            else:
                self._frames.append(picture)
        return self._frames[t % len(self._frames)]


class ClipFolder(Sequence[FileClip]):
    """The video files of a folder, in alphabetical order, each as a new clip whenever it is asked for.

    So only what is being shown is in memory, however large the folder is.

    Parameters
    ----------
    folder : path
        Searched itself, not its subfolders.
    size : (height, width)
        Of the clips' pictures, to which they are brought while they are read.

    Raises
    ------
    InputError
        There is no such folder, or it has no video.
    """

    def __init__(self, folder: str | PathLike[str], size: tuple[int, int]) -> None:
        self._files, self._size = _video_files(Path(folder)), size

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> FileClip: ...
    @overload
    def __getitem__(self, index: slice) -> list[FileClip]: ...
    def __getitem__(self, index: int | slice) -> FileClip | list[FileClip]:
        """Return a clip, or several."""
        if isinstance(index, slice):
            return [FileClip(path, self._size) for path in self._files[index]]
        return FileClip(self._files[index], self._size)


def open_clips(clips: str | PathLike[str] | Sequence[Clip], size: tuple[int, int], setting: str) -> Sequence[Clip]:
    """Return the clips of a folder, or those that were given.

    Parameters
    ----------
    clips : path or sequence of Clip
        A folder of videos, or one with a folder of them for each video setting, ``video_easy`` and ``video_hard``.
    size : (height, width)
        Of the pictures of a folder's clips.
    setting : str
        For which they are.

    Raises
    ------
    InputError
        There is no such folder, or there is no clip in what was given.
    InputTypeError
        It is neither a path nor a sequence of clips.
    """
    if isinstance(clips, (str, PathLike)):
        return ClipFolder(clip_folder(clips, setting), size)
    are_clips = isinstance(clips, Sequence) and all(hasattr(clip, "frame") for clip in clips)
    if not are_clips:
        raise InputTypeError(
            f"clips must be a folder of videos or a sequence of clips, each with a frame(t), not {clips!r}"
        )
    if not clips:
        raise InputError("clips is empty: give at least one clip, or None for procedural backgrounds")
    return clips


def find_clips(
    folder: str | Path, *, size: tuple[int, int] | None = None, stride: int = 1, limit: int | None = None
) -> list[VideoClip]:
    """Read the video files of a folder and of all its subfolders; a clip is named as ``subfolder/file``.

    Parameters and errors are those of `load_clips`.
    """
    folder = Path(folder)
    files = _video_files(folder, below=True)
    return [
        VideoClip(path.relative_to(folder).with_suffix("").as_posix(), _decode(path, size, stride, limit))
        for path in files
    ]


def _video_files(folder: Path, *, below: bool = False) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"clips: there is no folder {folder}")
    found = folder.rglob("*") if below else folder.glob("*")
    files = sorted(path for path in found if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        where = f"the folder {folder}{' or below' if below else ''}"
        raise InputError(f"clips: no video file ({', '.join(VIDEO_SUFFIXES)}) in {where}")
    return files


def _decode(path: Path, size: tuple[int, int] | None, stride: int, limit: int | None) -> NDArray[np.uint8]:
    return np.stack(list(islice(_pictures(path, size, stride), limit)))


def _pictures(path: Path, size: tuple[int, int] | None, stride: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Decode every ``stride``-th picture of a file, at least one."""
    import av

    index = -1
    try:
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % stride:
                    continue
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                if size is not None:
                    # Halving first where it can be keeps this quick without changing what is seen.
                    picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0)
                yield np.asarray(picture)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise FileError(f"clips: {path} cannot be decoded ({error})") from error
    if index < 0:
        raise FileError(f"clips: {path} has no picture in it")
