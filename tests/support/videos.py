"""Small videos as cameras and telephones write them: turned, late, unevenly timed, cut within a group of pictures."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TICK = Fraction(1, 90_000)

OPEN_GROUPS = "open-gop=1:b-pyramid=normal:bframes=4:keyint=12:min-keyint=12:scenecut=0:ref=4:b-adapt=0"
"""x264: groups of pictures whose first ones, as shown, need the group before."""

Picture = NDArray[np.uint8]


def moving_pictures(count: int, height: int = 48, width: int = 64) -> list[Picture]:
    """Return colourful pictures of which no two are alike."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(picture, 2 * shift, axis=1) for shift in range(count)]


def write_timed(
    path: Path, pictures: Sequence[Picture], times: Sequence[float], last: float = 0.04, *, x264: str = "bframes=0"
) -> None:
    """Write pictures that are shown at their own times, in seconds, the last one for `last` seconds."""
    lengths = [*np.diff(times).tolist(), last]
    durations = {round(time / TICK): round(length / TICK) for time, length in zip(times, lengths, strict=True)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"x264-params": x264, "crf": "10"}
        stream.codec_context.time_base = TICK
        for picture, start in zip([*pictures, None], [*durations, None], strict=True):
            frame = None
            if picture is not None:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = start, TICK
            for packet in stream.encode(frame):
                packet.duration = durations.get(packet.pts, 0)
                container.mux(packet)


def cut_within_groups(source: Path, out: Path) -> int:
    """Copy a video from its second key picture on, without encoding it again; return how many pictures are copied."""
    count, keys, first = 0, 0, None
    with av.open(str(source)) as read, av.open(str(out), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        for packet in read.demux(stream):
            keys += packet.is_keyframe and packet.size > 0
            if keys < 2 or packet.dts is None or packet.pts is None:
                continue
            first = packet.dts if first is None else first
            packet.pts, packet.dts = packet.pts - first, packet.dts - first
            packet.stream = copy
            written.mux(packet)
            count += 1
    return count


def turn(path: Path, right: tuple[int, int], down: tuple[int, int]) -> None:
    """Write into an MP4 where its picture's right and lower edges point when it is shown, as a telephone does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 52 if data[at] else 40
    assert struct.unpack_from(">i", data, at) == (1 << 16,)
    struct.pack_into(">9i", data, at, *(v << 16 for v in right), 0, *(v << 16 for v in down), 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def write_growing(path: Path, sizes: Sequence[tuple[int, int]], each: int = 3) -> None:
    """Write a transport stream whose pictures change their size (height, width) after every `each`."""
    packets = []
    for height, width in sizes:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
        encoder.options = {"x264-params": "repeat-headers=1:bframes=0"}
        for number, picture in enumerate(moving_pictures(each, height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *sizes[0], "yuv420p"
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)


def write_grey(path: Path, count: int = 3) -> None:
    """Write a video without colours."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "gray"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), 40 * number, np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
