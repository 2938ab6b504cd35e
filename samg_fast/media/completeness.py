"""Whether a video file is as long as its own structure says: many decoders read a file that was cut short in silence.

Times cannot tell: the last picture may be held for any time, and sound may be longer than the pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

__all__ = ["missing_bytes"]

_MP4_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"mfra"})
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """Return how many bytes a file lacks at its end.

    Parameters
    ----------
    path : pathlib.Path
        An MP4, MOV, Matroska, WebM, AVI, WebP or GIF; others have no structure that tells.

    Returns
    -------
    int
        0 where the file is whole, or does not say how long it is.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if start.startswith(b"RIFF"):
            end = _end_of_riff(file)
        elif start.startswith(_EBML):
            end = _end_of_matroska(file)
        elif start.startswith(b"GIF8"):
            end = _end_of_gif(file)
        elif start[4:] in _MP4_BOXES:
            end = _end_of_mp4(file)
        else:
            end = 0
    return max(0, end - size)


def _end_of_riff(file: BinaryIO) -> int:
    """Follow the RIFF chunks: a large AVI has several."""
    end = 0
    while (head := file.read(8)).startswith(b"RIFF") and len(head) == 8:
        length = int.from_bytes(head[4:], "little")
        if length in (0, 0xFFFFFFFF):  # written to where nothing could be filled in afterwards
            return 0
        end = file.tell() + length  # the byte that makes an odd length even may be left out
        file.seek(end + length % 2)
    return end


def _end_of_mp4(file: BinaryIO) -> int:
    """Follow the outermost boxes, as far as they are known: cameras append data of their own."""
    end = 0
    while len(head := file.read(8)) == 8 and head[4:] in _MP4_BOXES:
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8:  # 0: to the end of the file
            return 0
        end += length
        file.seek(end)
    return end


def _end_of_matroska(file: BinaryIO) -> int:
    """Read the length of the first segment, which holds all but the header."""
    for _ in range(8):
        name = file.read(4)
        first = file.read(1)
        if len(name) < 4 or not first or not first[0]:
            return 0
        more = 8 - first[0].bit_length()  # the leading zeros count the bytes that follow
        bits = 7 * (more + 1)
        length = int.from_bytes(first + file.read(more), "big") & ((1 << bits) - 1)
        if name == _SEGMENT:
            return 0 if length == (1 << bits) - 1 else file.tell() + length
        if name != _EBML:
            return 0
        file.seek(length, 1)
    return 0


def _end_of_gif(file: BinaryIO) -> int:
    """Follow the blocks; a file without the closing byte is whole if its last block is."""

    def colours(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    file.seek(10)
    file.seek(13 + colours(_byte(file)))
    while True:
        kind = _byte(file)
        if kind == 0x2C:  # a picture: its place and size, its colours, the width of its codes
            file.seek(8, 1)
            file.seek(colours(_byte(file)) + 1, 1)
        elif kind == 0x21:  # an extension: its label
            file.seek(1, 1)
        else:
            return 0
        while length := _byte(file):
            if length < 0:
                return file.tell() + 1
            file.seek(length, 1)


def _byte(file: BinaryIO) -> int:
    """Read a byte; -1 at the end of the file."""
    byte = file.read(1)
    return byte[0] if byte else -1
