"""Moving pictures of every kind: what is shown, when, how it is turned, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from samg_fast.errors import FileError, InputError
from samg_fast.media import VideoReader, VideoWriter, frames_in, read_image
from support.videos import (
    OPEN_GROUPS,
    Picture,
    cut_within_groups,
    moving_pictures,
    turn,
    write_grey,
    write_growing,
    write_timed,
)

UNEVEN = [0.0, 0.04, 0.08, 0.5, 0.54, 1.0]
ANIMATIONS = ["gif", "png", "webp", "tif"]


def times_of(path: Path) -> list[float]:
    return [frame.time for frame in VideoReader(path).timed()]


def near(image: Picture, other: Picture, within: float = 12) -> bool:
    return image.shape == other.shape and float(np.abs(image.astype(int) - other).mean()) < within


def write_animation(path: Path, count: int = 4, last: int = 2000) -> list[Picture]:
    """Write pictures of 40 ms each, the last held; a TIFF has no times."""
    pictures = moving_pictures(count)
    first, *others = map(Image.fromarray, pictures)
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    durations = [40] * (count - 1) + [last]
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return pictures


class TestTimes:
    @pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "flv", "ts"])
    def test_of_a_variable_rate_whose_last_picture_is_held(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        write_timed(path, moving_pictures(6), UNEVEN, last=2)
        frames = list(VideoReader(path).timed())
        assert [frame.time for frame in frames] == pytest.approx(UNEVEN, abs=2e-3)
        if suffix in ("mp4", "mov", "mkv"):
            assert frames[-1].duration == pytest.approx(2, abs=2e-3)

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
    def test_of_pictures_that_are_stored_in_another_order(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        write_timed(path, moving_pictures(6), UNEVEN, last=2, x264="bframes=3:b-adapt=0")
        assert times_of(path) == pytest.approx(UNEVEN, abs=2e-3)

    def test_of_an_avi(self, tmp_path: Path) -> None:
        path = tmp_path / "a.avi"
        write_timed(path, moving_pictures(10), [each / 25 for each in range(10)], x264="bframes=2:b-adapt=0")
        assert times_of(path) == pytest.approx([each / 25 for each in range(10)], abs=2e-3)

    @pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
    @pytest.mark.parametrize("x264", ["bframes=0", "bframes=3:b-adapt=0"])
    def test_of_a_file_that_does_not_start_at_0(self, tmp_path: Path, suffix: str, x264: str) -> None:
        path = tmp_path / f"a.{suffix}"
        times = [30 + each / 25 for each in range(20)]
        write_timed(path, moving_pictures(20), times, x264=x264)
        reader = VideoReader(path)
        assert [frame.time for frame in reader.timed()] == pytest.approx([each / 25 for each in range(20)], abs=2e-3)
        assert reader.start == pytest.approx(30, abs=0.2)

    @pytest.mark.parametrize("suffix", ["mkv", "avi", "flv"])
    @pytest.mark.parametrize("start", [0, 30])
    def test_a_file_cut_short_says_so(self, tmp_path: Path, suffix: str, start: int) -> None:
        path = tmp_path / f"a.{suffix}"
        write_timed(path, moving_pictures(40), [start + each / 25 for each in range(40)], last=2)
        assert len(list(VideoReader(path))) == 40
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        with pytest.raises(FileError, match="cannot read frame" if suffix == "flv" else "cut short.*bytes are missing"):
            list(VideoReader(path))

    def test_an_mp4_cut_short_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        write_timed(tmp_path / "b.mp4", moving_pictures(40), [each / 25 for each in range(40)])
        with (
            av.open(str(tmp_path / "b.mp4")) as read,
            av.open(str(path), "w", options={"movflags": "faststart"}) as written,
        ):
            copy = written.add_stream_from_template(read.streams.video[0])
            for packet in read.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    written.mux(packet)
        assert len(list(VideoReader(path))) == 40
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
        with pytest.raises(FileError, match="cut short"):
            list(VideoReader(path))

    def test_data_that_a_camera_appends_is_none_of_the_video(self, tmp_path: Path) -> None:
        for suffix in ("mp4", "mkv", "avi"):
            path = tmp_path / f"a.{suffix}"
            write_timed(path, moving_pictures(5), [each / 25 for each in range(5)])
            path.write_bytes(path.read_bytes() + b"\xff\xff\xff\xf0SEFT and so on")
            assert len(list(VideoReader(path))) == 5


class TestTurned:
    @pytest.mark.parametrize(
        ("right", "down", "shown"),
        [
            ((1, 0), (0, 1), lambda p: p),
            ((0, 1), (-1, 0), lambda p: np.rot90(p, -1)),  # what is right points down: a quarter clockwise
            ((-1, 0), (0, -1), lambda p: np.rot90(p, 2)),
            ((0, -1), (1, 0), lambda p: np.rot90(p, 1)),
            ((-1, 0), (0, 1), lambda p: p[:, ::-1]),
            ((1, 0), (0, -1), lambda p: p[::-1]),
            ((0, 1), (1, 0), lambda p: p.transpose(1, 0, 2)),
            ((0, -1), (-1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
        ],
    )
    def test_as_players_show_it(
        self, tmp_path: Path, right: tuple[int, int], down: tuple[int, int], shown: Callable[[Picture], Picture]
    ) -> None:
        path = tmp_path / "a.mp4"
        write_timed(path, moving_pictures(2), [0, 0.04])
        upright = list(VideoReader(path))
        turn(path, right, down)
        turned = list(VideoReader(path))
        assert all(np.array_equal(each, shown(frame)) for each, frame in zip(turned, upright, strict=True))
        assert all(each.flags.c_contiguous for each in turned)


class TestCut:
    @pytest.mark.parametrize("suffix", ["mkv", "mp4"])
    def test_what_needs_the_pictures_before_is_left_out(
        self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pictures = moving_pictures(48)
        write_timed(tmp_path / "whole.mkv", pictures, [each / 25 for each in range(48)], x264=OPEN_GROUPS)
        whole = list(VideoReader(tmp_path / "whole.mkv"))
        assert caplog.records == []
        copied = cut_within_groups(tmp_path / "whole.mkv", tmp_path / f"cut.{suffix}")
        reader = VideoReader(tmp_path / f"cut.{suffix}")
        cut = list(reader)
        assert reader.left_out > 0
        assert len(cut) == copied - reader.left_out
        # nothing of what comes is painted over what is missing
        assert all(np.array_equal(each, other) for each, other in zip(cut, whole[-len(cut) :], strict=True))
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert f"cut.{suffix}" in record.getMessage()
        frames = "first frame" if reader.left_out == 1 else f"first {reader.left_out} frames"
        assert frames in record.getMessage()

    def test_a_broadcast_that_starts_anywhere(self, tmp_path: Path) -> None:
        x264 = f"{OPEN_GROUPS}:repeat-headers=1"
        write_timed(tmp_path / "a.ts", moving_pictures(48), [each / 25 for each in range(48)], x264=x264)
        data = (tmp_path / "a.ts").read_bytes()
        (tmp_path / "a.ts").write_bytes(data[len(data) // 3 // 188 * 188 :])
        reader = VideoReader(tmp_path / "a.ts")
        assert 15 < len(list(reader)) < 40
        assert reader.left_out > 1

    @pytest.mark.parametrize("codec", ["mpeg2video", "libx265"])
    def test_other_codecs(self, tmp_path: Path, codec: str) -> None:
        if codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no {codec}")
        with av.open(str(tmp_path / "whole.mkv"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
            stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
            stream.options = (
                {}
                if codec == "mpeg2video"
                else {"x265-params": "open-gop=1:keyint=12:min-keyint=12:b-adapt=0:log-level=none"}
            )
            for picture in moving_pictures(30, 64, 64):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        whole = VideoReader(tmp_path / "whole.mkv")
        frames = list(whole)
        copied = cut_within_groups(tmp_path / "whole.mkv", tmp_path / "cut.mkv")
        reader = VideoReader(tmp_path / "cut.mkv")
        cut = list(reader)
        assert (whole.left_out, len(frames)) == (0, 30)
        assert reader.left_out == copied - len(cut) > 0
        assert all(np.array_equal(each, other) for each, other in zip(cut, frames[-len(cut) :], strict=True))

    def test_a_damaged_start_is_no_cut(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mkv"
        write_timed(path, moving_pictures(30), [each / 25 for each in range(30)], x264="bframes=0:keyint=10")
        with av.open(str(path)) as container:
            first = bytes(next(container.demux(video=0)))
        data = path.read_bytes()
        at = data.index(first) + len(first) // 2
        path.write_bytes(data[:at] + bytes(len(first) // 3) + data[at + len(first) // 3 :])
        with pytest.raises(FileError, match="cannot read frame 0"):
            list(VideoReader(path))


class TestAnimations:
    @pytest.mark.parametrize("suffix", ANIMATIONS)
    def test_every_frame_as_a_video(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        pictures = write_animation(path)
        frames = frames_in(path)
        assert (frames.kind, frames.count, frames.fps) == ("video", 4, 25)
        read = list(frames.timed())
        assert [frame.name for frame in read] == [f"{number:06d}" for number in range(4)]
        assert all(near(frame.image, picture) for frame, picture in zip(read, pictures, strict=True))
        assert [frame.time for frame in read] == pytest.approx([0, 0.04, 0.08, 0.12])
        assert read[-1].duration == pytest.approx(0.04 if suffix == "tif" else 2)

    @pytest.mark.parametrize("suffix", ANIMATIONS)
    def test_is_no_picture(self, tmp_path: Path, suffix: str) -> None:
        write_animation(tmp_path / f"a.{suffix}")
        with pytest.raises(FileError, match=rf"a\.{suffix} as a picture: it holds 4 of them, expected one"):
            read_image(tmp_path / f"a.{suffix}")

    @pytest.mark.parametrize("suffix", ["gif", "png"])
    def test_cut_short(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        write_animation(path, 10)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        with pytest.raises(FileError, match=r"cannot read frame \d of .*(cut short|[Tt]runcated)"):
            list(VideoReader(path))

    def test_a_picture_that_stands_in_for_an_animation_is_not_shown(self, tmp_path: Path) -> None:
        first, *others = map(Image.fromarray, moving_pictures(4))
        first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=40, default_image=True)
        assert np.array_equal(next(iter(VideoReader(tmp_path / "a.png"))), np.asarray(others[0]))

    def test_a_small_copy_is_no_page(self, tmp_path: Path) -> None:
        picture = Image.fromarray(moving_pictures(1)[0])
        picture.save(tmp_path / "a.tif", save_all=True, append_images=[picture.resize((8, 6))])
        assert frames_in(tmp_path / "a.tif").kind == "image"
        assert read_image(tmp_path / "a.tif").shape == (48, 64, 3)

    @pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
    def test_one_picture_stays_a_picture(self, tmp_path: Path, suffix: str) -> None:
        Image.fromarray(moving_pictures(1)[0]).save(tmp_path / f"a.{suffix}")
        assert frames_in(tmp_path / f"a.{suffix}").kind == "image"


class TestRefused:
    def test_grey_as_grey_pictures_are(self, tmp_path: Path) -> None:
        write_grey(tmp_path / "a.mkv")
        with pytest.raises(FileError, match=r"a\.mkv: it is a grey video \(gray\), expected colours"):
            VideoReader(tmp_path / "a.mkv")
        assert len(list(VideoReader(tmp_path / "a.mkv", grey=True))) == 3
        greys = [Image.fromarray(np.full((8, 8), 50 * number, np.uint8)) for number in range(3)]
        greys[0].save(tmp_path / "a.png", save_all=True, append_images=greys[1:])
        with pytest.raises(FileError, match=r"grey video \(L\)"):
            frames_in(tmp_path / "a.png")

    def test_a_size_that_changes(self, tmp_path: Path) -> None:
        write_growing(tmp_path / "a.ts", [(48, 64), (96, 80)])
        read = []
        with pytest.raises(FileError, match=r"frame 3 of .*a\.ts: it is 80x96 pixels where those before are 64x48"):
            read.extend(VideoReader(tmp_path / "a.ts"))
        assert len(read) == 3


class TestNames:
    def test_a_colon_is_no_protocol(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with VideoWriter("12:30:05.mp4", 25) as video:
            for picture in moving_pictures(3):
                video.write(picture)
        assert [path.name for path in tmp_path.iterdir()] == ["12:30:05.mp4"]
        assert len(list(VideoReader("12:30:05.mp4"))) == 3
        assert frames_in(Path("12:30:05.mp4")).kind == "video"

    def test_those_that_begin_with_a_dot_are_left_out(self, tmp_path: Path) -> None:
        Image.fromarray(moving_pictures(1)[0]).save(tmp_path / "a.png")
        (tmp_path / "._a.png").write_bytes(b"what macOS keeps beside it")
        assert [name for name, _ in frames_in(tmp_path)] == ["a"]
        (tmp_path / "a.png").unlink()
        with pytest.raises(FileError, match="holds no picture"):
            frames_in(tmp_path)


class TestWriter:
    def test_keeps_the_times_it_is_given(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "a.mp4", 25) as video:
            for picture, time in zip(moving_pictures(6), UNEVEN, strict=True):
                video.write(picture, time=time, duration=2)
        frames = list(VideoReader(tmp_path / "a.mp4").timed())
        assert [frame.time for frame in frames] == pytest.approx(UNEVEN, abs=1e-4)
        assert frames[-1].duration == pytest.approx(2)

    @pytest.mark.parametrize("fps", [1 / 3600, 0.5, 30000 / 1001, 1000])
    def test_any_rate(self, tmp_path: Path, fps: float) -> None:
        with VideoWriter(tmp_path / "a.mp4", fps) as video:
            for picture in moving_pictures(3):
                video.write(picture)
        assert VideoReader(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-6)
        assert times_of(tmp_path / "a.mp4") == pytest.approx([0, 1 / fps, 2 / fps], rel=1e-3)

    def test_pictures_an_hour_apart(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "a.mp4", 1 / 3600) as video:
            for hour, picture in enumerate(moving_pictures(3)):
                video.write(picture, time=3600.0 * hour)
        assert times_of(tmp_path / "a.mp4") == pytest.approx([0, 3600, 7200])

    @pytest.mark.parametrize("fps", [float("inf"), 1e-9, 1e9])
    def test_no_rate(self, tmp_path: Path, fps: float) -> None:
        with pytest.raises(InputError, match="fps must be a number"):
            VideoWriter(tmp_path / "a.mp4", fps)

    def test_times_for_all_or_none(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "a.mp4", 25) as video:
            first, second = moving_pictures(2)
            video.write(first, time=0)
            with pytest.raises(InputError, match="time must come with every frame or with none"):
                video.write(second)
