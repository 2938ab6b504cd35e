"""Moving backgrounds: video clips from a folder, and the procedural ones of `samg_fast.envs.procedural`.

A clip is anything with ``frame(t)``. Clips loop forever, so an episode can have any length.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.checks import check_frames, check_whole, describe
from samg_fast.envs.procedural import ProceduralClip, procedural_clip
from samg_fast.envs.settings import clip_folder
from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.media import VIDEO_SUFFIXES, VideoReader

__all__ = ["Clip", "ClipFolder", "FileClip", "ProceduralClip", "VideoClip", "find_clips", "load_clips"]
__all__ += ["open_clips", "procedural_clip"]


class Clip(Protocol):
    """A moving background."""

    @property
    def name(self) -> str:
        """Name of the clip."""
        ...

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return image ``t`` as (h, w, 3) uint8; any t ≥ 0 is valid, as clips loop."""
        ...


@dataclass(frozen=True)
class VideoClip:
    """A clip whose images are all in memory.

    Attributes
    ----------
    name : str
        Name of the file it was read from.
    frames : (n, h, w, 3) uint8
        At least one image.

    Raises
    ------
    InputError, InputTypeError
        `frames` is no such array.
    """

    name: str
    frames: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise InputError(f"frames of the clip {self.name!r} must hold at least one image, got none")
        check_frames("frames", self.frames)

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return image ``t`` modulo the clip's length, (h, w, 3) uint8."""
        image: NDArray[np.uint8] = self.frames[t % len(self.frames)]
        return image


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
        Its subfolders are not searched. Names that begin with a dot are left out.
    names : sequence of str, optional
        File names, with or without suffix, in the order to return them. By default all files in alphabetical order.
    size : (height, width), optional
        Resize every image to this size while reading, which saves memory.
    stride : int
        Keep every ``stride``-th image.
    limit : int, optional
        Maximum number of images to keep of a clip.

    Returns
    -------
    list of VideoClip

    Raises
    ------
    InputError
        The folder has no video, or lacks one that was named; `stride` or `limit` is below 1.
    FileError
        A file cannot be decoded, or is cut short.
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
    return [VideoClip(path.stem, _read_images(path, size, stride, limit)) for path in chosen]


class FileClip:
    """A video file that is decoded as far as it has been shown; decoded images stay in memory.

    Parameters
    ----------
    path : path
    size : (height, width)
        Size that images are resized to while they are read.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.name = path.stem
        self._path, self._size = path, size
        self._images: list[NDArray[np.uint8]] = []
        self._error = ""
        self._remaining: Iterator[NDArray[np.uint8]] | None = _decode(path, size)

    def __reduce__(self) -> tuple[type[FileClip], tuple[Path, tuple[int, int]]]:
        """Copy and pickle as the file's path and size: a copy opens the file anew."""
        return FileClip, (self._path, self._size)

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return image ``t`` modulo the clip's length, (h, w, 3) uint8.

        Raises
        ------
        FileError
            The file cannot be decoded up to this image.
        """
        while self._remaining is not None and t >= len(self._images):
            if self._error:  # the images before the fault are not the whole clip, so it cannot loop over them
                raise FileError(self._error)
            try:
                image = next(self._remaining, None)
            except FileError as error:
                self._error = str(error)
                raise
            if image is None:
                self._remaining = None
            else:
                self._images.append(image)
        return self._images[t % len(self._images)]


class ClipFolder(Sequence[FileClip]):
    """The video files of a folder, in alphabetical order; indexing opens a new clip each time.

    Only clips in use are in memory, however large the folder is.

    Parameters
    ----------
    folder : path
        Its subfolders are not searched.
    size : (height, width)
        Size that images are resized to while they are read.

    Raises
    ------
    InputError
        The folder does not exist, or has no video.
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
        """Return the clip at an index, or the clips of a slice."""
        if isinstance(index, slice):
            return [FileClip(path, self._size) for path in self._files[index]]
        return FileClip(self._files[index], self._size)


def open_clips(clips: str | PathLike[str] | Sequence[Clip], size: tuple[int, int], setting: str) -> Sequence[Clip]:
    """Return the clips of a folder, or the given clips once they are checked.

    Parameters
    ----------
    clips : path or sequence of Clip
        A folder of videos, a folder with a subfolder of videos for each of ``video_easy`` and ``video_hard``, or clips.
    size : (height, width)
        Size of the images of a folder's clips.
    setting : str
        The setting the clips are for; selects the subfolder.

    Raises
    ------
    InputError
        The folder does not exist, or there is no clip in what was given.
    InputTypeError
        `clips` is neither a path nor a sequence of clips.
    """
    if isinstance(clips, (str, PathLike)):
        return ClipFolder(clip_folder(clips, setting), size)
    are_clips = isinstance(clips, Sequence) and all(hasattr(clip, "frame") for clip in clips)
    if not are_clips:
        raise InputTypeError(
            f"clips must be a folder of videos or a sequence of clips, each with a frame(t), not {describe(clips)}"
        )
    if not clips:
        raise InputError("clips is empty: give at least one clip, or None for procedural backgrounds")
    return clips


def find_clips(
    folder: str | Path,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    stride: int = 1,
    limit: int | None = None,
) -> list[VideoClip]:
    """Read the video files of a folder and of all its subfolders, naming each clip ``subfolder/file``.

    Parameters
    ----------
    only, without : sequence of str
        Names of the clips to read, by default of all, and of those that are not opened; ``*``, ``?`` and ``[…]`` mean
        what they mean in a shell.

    Other parameters and errors are those of `load_clips`.
    """
    folder = Path(folder)
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in _video_files(folder, recursive=True)}
    for pattern in (*(only or ()), *without):
        if not fnmatch.filter(files, pattern):
            raise InputError(f"clips: no clip in {folder} is called {pattern}; there are {', '.join(files)}")
    return [
        VideoClip(name, _read_images(path, size, stride, limit))
        for name, path in files.items()
        if (only is None or _matches(name, only)) and not _matches(name, without)
    ]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _video_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"clips: there is no folder {folder}")
    found = folder.rglob("*") if recursive else folder.glob("*")
    files = sorted(
        path
        for path in found
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)  # systems leave files of their own
        and path.is_file()
    )
    if not files:
        where = f"the folder {folder}{' or below' if recursive else ''}"
        raise InputError(f"clips: no video file ({', '.join(VIDEO_SUFFIXES)}) in {where}")
    return files


def _read_images(path: Path, size: tuple[int, int] | None, stride: int, limit: int | None) -> NDArray[np.uint8]:
    check_whole("stride", stride, 1)
    if limit is not None:
        check_whole("limit", limit, 1, otherwise=" or None")
    return np.stack(list(islice(_decode(path, size, stride), limit)))


def _decode(path: Path, size: tuple[int, int] | None, stride: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Decode every ``stride``-th image of a file, at least one."""
    try:
        # A background may be grey: nothing is recognised by it.
        for index, frame in enumerate(VideoReader(path, grey=True)):
            if index % stride:
                continue
            image = Image.fromarray(frame)
            if size is not None:
                # reducing_gap shrinks large images in two steps: much faster, with no visible difference.
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0)
            yield np.asarray(image)
    except FileError as error:
        raise FileError(f"clips: {path} cannot be decoded ({error})") from error
