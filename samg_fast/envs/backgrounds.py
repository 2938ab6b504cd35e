"""Moving backgrounds: video clips from a folder, and the procedural ones of `samg_fast.envs.procedural`.

A clip is anything with ``frame(t)``; it loops for ever, so that an episode may be of any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.envs.procedural import ProceduralClip, procedural_clip
from samg_fast.errors import InputError, MediaError

__all__ = ["Clip", "ClipFolder", "ProceduralClip", "VideoClip", "find_clips", "load_clips", "procedural_clip"]

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
    MediaError
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


class ClipFolder(Sequence[VideoClip]):
    """The video files of a folder, each read when it is asked for, so that no more than that one is in memory.

    Parameters
    ----------
    folder : path
        Searched itself, not its subfolders; the clips are in alphabetical order.
    size : (height, width)
        Of the clips' pictures, to which they are brought while they are read.

    Raises
    ------
    InputError
        The folder has no video.
    """

    def __init__(self, folder: str | Path, size: tuple[int, int]) -> None:
        self._files, self._size = _video_files(Path(folder)), size

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> VideoClip: ...
    @overload
    def __getitem__(self, index: slice) -> list[VideoClip]: ...
    def __getitem__(self, index: int | slice) -> VideoClip | list[VideoClip]:
        """Read a clip, or several; raises `MediaError` where one cannot be decoded."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return VideoClip(self._files[index].stem, _decode(self._files[index], self._size, 1, None))


def find_clips(
    folder: str | Path, *, size: tuple[int, int] | None = None, stride: int = 1, limit: int | None = None
) -> list[VideoClip]:
    """Read the video files of a folder and of all its subfolders; a clip is named as ``subfolder/file``.

    Parameters and errors are those of `load_clips`.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise InputError(f"clips: no video file ({', '.join(VIDEO_SUFFIXES)}) in the folder {folder} or below")
    return [
        VideoClip(path.relative_to(folder).with_suffix("").as_posix(), _decode(path, size, stride, limit))
        for path in files
    ]


def _video_files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not files:
        raise InputError(f"clips: no video file ({', '.join(VIDEO_SUFFIXES)}) in the folder {folder}")
    return files


def _decode(path: Path, size: tuple[int, int] | None, stride: int, limit: int | None) -> NDArray[np.uint8]:
    import av

    pictures = []
    try:
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % stride:
                    continue
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                if size is not None:
                    # Halving first where it can be keeps this quick without changing what is seen.
                    picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0)
                pictures.append(np.asarray(picture))
                if limit is not None and len(pictures) >= limit:
                    break
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise MediaError(f"clips: {path} cannot be decoded ({error})") from error
    if not pictures:
        raise MediaError(f"clips: {path} has no picture in it")
    return np.stack(pictures)
