"""Pictures and videos on the disk: what is read, what is refused, and what stays of a run that ends early."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.files import check_writable, output_folder
from samg_fast.media import VideoReader, VideoWriter, frames_in, read_image, read_mask, write_image


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_video(path: Path, count: int, height: int = 64, width: int = 80, fps: float = 20) -> None:
    picture = noise(height, width)
    with VideoWriter(path, fps) as video:
        for shift in range(count):
            video.write(np.roll(picture, shift, axis=0))


def damage(path: Path) -> None:
    """Blank some of a video's data; what stands before and after can still be read."""
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(2000) + data[middle + 2000 :])


class TestPictures:
    @pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 3)])
    def test_rgb_comes_back_as_it_was(self, tmp_path: Path, shape: tuple[int, int, int]) -> None:
        picture = noise(*shape[:2])
        write_image(tmp_path / "a.png", picture)
        assert np.array_equal(read_image(tmp_path / "a.png"), picture)

    @pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
    def test_other_modes_become_rgb(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
        read = read_image(path)
        assert read.shape == (4, 6, 3)
        assert read.dtype == np.uint8
        assert (read == 255).all()

    @pytest.mark.parametrize("mode", ["1", "L", "LA"])
    def test_grey_is_refused(self, tmp_path: Path, mode: str) -> None:
        Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(tmp_path / "a.png")
        with pytest.raises(FileError, match=rf"a\.png: it is a grey picture \(mode {mode}\), expected RGB"):
            read_image(tmp_path / "a.png")

    def test_orientation_noted_by_a_camera_is_applied(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (6, 4))
        exif = image.getexif()
        exif[0x0112] = 6  # turn by 90 degrees
        image.save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").shape == (6, 4, 3)

    def test_sixteen_bits_are_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "a.png")
        with pytest.raises(FileError, match=r"I;16.*8 bits"):
            read_image(tmp_path / "a.png")

    def test_text_is_no_picture(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("not a picture")
        with pytest.raises(FileError, match="it is not a picture"):
            read_image(tmp_path / "a.png")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="No such file"):
            read_image(tmp_path / "a.png")

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
    def test_cut_file(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        write_image(path, noise(40, 40))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(FileError, match=path.name):
            read_image(path)

    def test_nothing_is_left_where_writing_fails(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="cannot write"):
            write_image(tmp_path / "missing" / "a.png", noise(4, 4))
        assert list(tmp_path.iterdir()) == []


class TestMasks:
    def test_comes_back_as_it_was(self, tmp_path: Path) -> None:
        mask = noise(9, 11)[..., 0] > 128
        write_image(tmp_path / "a.png", mask)
        assert np.array_equal(read_mask(tmp_path / "a.png"), mask)

    @pytest.mark.parametrize("white", [1, 200, 255])
    def test_any_white_will_do(self, tmp_path: Path, white: int) -> None:
        mask = noise(9, 11)[..., 0] > 128
        Image.fromarray(np.where(mask, white, 0).astype(np.uint8)).save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), mask)

    def test_palette_indices_are_the_labels(self, tmp_path: Path) -> None:
        mask = noise(9, 11)[..., 0] > 128
        image = Image.new("P", (11, 9))
        image.putpalette([250, 250, 250, 10, 10, 10])  # label 1 is drawn darker than label 0
        image.putdata(mask.astype(np.uint8).ravel().tolist())
        image.save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), mask)

    def test_lossy_files_keep_the_shape(self, tmp_path: Path) -> None:
        mask = np.zeros((32, 32), bool)
        mask[8:24, 8:24] = True
        write_image(tmp_path / "a.jpg", mask)
        assert np.array_equal(read_mask(tmp_path / "a.jpg"), mask)

    def test_black_is_empty(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", np.zeros((4, 4), bool))
        assert not read_mask(tmp_path / "a.png").any()


class TestVideos:
    @pytest.mark.parametrize(("height", "width"), [(64, 80), (63, 81), (84, 84)])
    def test_comes_back_nearly_as_it_was(self, tmp_path: Path, height: int, width: int) -> None:
        ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
        picture = np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8)
        with VideoWriter(tmp_path / "a.mp4", 12.5) as video:
            for _ in range(5):
                video.write(picture)
        reader = VideoReader(tmp_path / "a.mp4")
        frames = list(reader)
        assert (reader.fps, reader.count, len(frames)) == (12.5, 5, 5)
        assert frames[0].shape == (height + height % 2, width + width % 2, 3)
        assert frames[0].dtype == np.uint8
        assert np.abs(frames[3][:height, :width].astype(int) - picture).mean() < 3

    def test_can_be_read_twice(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", 3)
        reader = VideoReader(tmp_path / "a.mp4")
        assert [len(list(reader)), len(list(reader))] == [3, 3]

    def test_appears_only_when_it_is_whole(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "a.mp4", 10) as video:
            video.write(noise(32, 32))
            assert not (tmp_path / "a.mp4").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_interrupted_one_keeps_its_frames(self, tmp_path: Path, error: type[BaseException]) -> None:
        def broken_off() -> None:
            with VideoWriter(tmp_path / "a.mp4", 10) as video:
                for _ in range(4):
                    video.write(noise(32, 32))
                raise error

        with pytest.raises(error):
            broken_off()
        assert len(list(VideoReader(tmp_path / "a.mp4"))) == 4
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]

    def test_no_frame_no_file(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "a.mp4", 10):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_frames_are_checked(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "a.mp4", 10) as video:
            with pytest.raises(InputTypeError, match="float64"):
                video.write(noise(32, 32) / 255)
            with pytest.raises(InputError, match=r"\(32, 32\)"):
                video.write(noise(32, 32)[..., 0])
            video.write(noise(32, 32))
            with pytest.raises(InputError, match=r"\(32, 32\) like the first one, got \(32, 34\)"):
                video.write(noise(32, 34))
        with pytest.raises(InputError, match="closed"):
            video.write(noise(32, 32))

    @pytest.mark.parametrize("fps", [0, -1, float("nan")])
    def test_fps_is_checked(self, tmp_path: Path, fps: float) -> None:
        with pytest.raises(InputError, match="fps must be a number above 0, not"):
            VideoWriter(tmp_path / "a.mp4", fps)

    def test_folder_is_checked_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="No such file"):
            VideoWriter(tmp_path / "missing" / "a.mp4", 10)

    def test_an_unknown_container_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match=r"a\.nonsense"), VideoWriter(tmp_path / "a.nonsense", 10) as video:
            video.write(noise(32, 32))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("content", [b"", b"not a video" * 50])
    def test_other_files_are_no_videos(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(FileError, match="it is not a video"):
            VideoReader(tmp_path / "a.mp4")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="no such file"):
            VideoReader(tmp_path / "a.mp4")

    def test_cut_file(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", 20)
        data = (tmp_path / "a.mp4").read_bytes()
        (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
        with pytest.raises(FileError, match="it is not a video"):
            VideoReader(tmp_path / "a.mp4")

    @pytest.mark.parametrize("suffix", ["mkv", "avi", "mp4"])
    def test_a_file_cut_short_is_refused_whole_ones_are_not(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        write_video(path, 40)
        assert len(list(VideoReader(path))) == 40
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        with pytest.raises(FileError, match=r"cannot read"):
            list(VideoReader(path))

    def test_a_damaged_frame_ends_it_with_its_number(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", 30)
        damage(tmp_path / "a.mp4")
        read = []
        with pytest.raises(FileError, match=r"cannot read frame \d+ of .*a\.mp4") as caught:
            read.extend(VideoReader(tmp_path / "a.mp4"))
        assert 0 < len(read) < 30
        assert f"frame {len(read)} " in str(caught.value)


class TestFramesIn:
    def test_picture(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.PNG", noise(4, 6))
        frames = frames_in(tmp_path / "a.PNG")
        assert (frames.kind, frames.count, frames.fps) == ("image", 1, None)
        assert [(name, frame.shape) for name, frame in frames] == [("a", (4, 6, 3))]

    def test_folder_in_natural_order(self, tmp_path: Path) -> None:
        for name in ("f10.png", "f2.png", "f1.jpg", "f1.png"):
            write_image(tmp_path / name, noise(4, 6))
        (tmp_path / "notes.txt").write_text("no picture")
        frames = frames_in(tmp_path)
        assert (frames.kind, frames.count) == ("folder", 4)
        assert [name for name, _ in frames] == ["f1.jpg", "f1.png", "f2", "f10"]

    def test_video(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", 3)
        frames = frames_in(tmp_path / "a.mp4")
        assert (frames.kind, frames.count, frames.fps) == ("video", 3, 20)
        assert [name for name, _ in frames] == ["000000", "000001", "000002"]

    def test_folder_without_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="holds no picture"):
            frames_in(tmp_path)

    @pytest.mark.parametrize("name", ["a.png", "a.mp4", "a"])
    def test_nothing_there(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileError, match="no such file"):
            frames_in(tmp_path / name)


class TestOutputs:
    def test_a_folder_is_made_with_its_parents(self, tmp_path: Path) -> None:
        assert output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
        assert list((tmp_path / "a" / "b").iterdir()) == []
        output_folder(tmp_path / "a" / "b")

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        for path in (tmp_path / "a", tmp_path / "a" / "b"):
            with pytest.raises(FileError, match="cannot write into the folder"):
                output_folder(path)

    def test_what_stands_there_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("kept")
        check_writable(tmp_path / "a")
        check_writable(tmp_path / "b")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="it is a folder"):
            check_writable(tmp_path)
        with pytest.raises(FileError, match="cannot write"):
            check_writable(tmp_path / "missing" / "a")
