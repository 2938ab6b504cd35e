"""Clips from files: which are found, how they are read, copied and refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from samg_fast.envs.backgrounds import ClipFolder, FileClip, VideoClip, find_clips, load_clips, open_clips
from samg_fast.errors import FileError, InputError, InputTypeError
from support.clips import write_video
from support.videos import moving_pictures, turn, write_grey, write_timed


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Make a folder of one clip among files that systems and programs leave there."""
    folder = tmp_path / "clips"
    (folder / "sub" / ".hidden").mkdir(parents=True)
    for path in (folder / "a.mp4", folder / "sub" / "b.mp4"):
        write_video(path, [0, 100, 200])
    for path in (folder / "._a.mp4", folder / "sub" / "._b.mp4", folder / "sub" / ".hidden" / "c.mp4"):
        path.write_bytes(b"no video")
    (folder / "folder.mp4").mkdir()
    return folder


def test_names_that_begin_with_a_dot_are_left_out(clips: Path) -> None:
    assert [clip.name for clip in load_clips(clips)] == ["a"]
    assert [clip.name for clip in ClipFolder(clips, (8, 8))] == ["a"]
    assert [clip.name for clip in find_clips(clips)] == ["a", "sub/b"]
    (clips / "a.mp4").unlink()
    with pytest.raises(InputError, match="no video file"):
        ClipFolder(clips, (8, 8))


def test_a_folder_with_a_colon(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clips.parent)
    clips.rename("12:30")
    (clip,) = open_clips("12:30", (8, 8), "video_hard")
    np.testing.assert_allclose([clip.frame(t).mean() for t in range(3)], [0, 100, 200], atol=6)


@pytest.mark.parametrize("after", [0, 2, 5])
def test_copies_show_the_same(clips: Path, after: int) -> None:
    clip = FileClip(clips / "a.mp4", (8, 8))
    for t in range(after):
        clip.frame(t)
    for other in (copy.deepcopy(clip), pickle.loads(pickle.dumps(clip))):
        assert other.name == clip.name
        assert all(np.array_equal(other.frame(t), clip.frame(t)) for t in (4, 0, 1, 2, 3))


def test_a_telephone_s_clip_is_turned(tmp_path: Path) -> None:
    write_timed(tmp_path / "a.mp4", moving_pictures(2, 48, 64), [0, 0.04])
    turn(tmp_path / "a.mp4", (0, 1), (-1, 0))
    assert load_clips(tmp_path)[0].frames.shape == (2, 64, 48, 3)


def test_a_grey_clip_is_a_background_like_any_other(tmp_path: Path) -> None:
    write_grey(tmp_path / "a.mkv")
    assert load_clips(tmp_path)[0].frames.shape == (3, 48, 64, 3)


def test_a_clip_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_timed(path, moving_pictures(30), [each / 25 for each in range(30)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(FileError, match=r"a\.mkv cannot be decoded \(.*cut short"):
        load_clips(tmp_path)


@pytest.mark.parametrize(
    ("options", "complaint"), [({"limit": 0}, "limit must be at least 1"), ({"stride": 0}, "stride")]
)
def test_no_images_are_refused(clips: Path, options: dict[str, int], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        load_clips(clips, **options)


def test_a_clip_of_no_frames_is_refused() -> None:
    with pytest.raises(InputError, match="'empty' must hold at least one image, got none"):
        VideoClip("empty", np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(InputTypeError, match="uint8"):
        VideoClip("floats", np.zeros((2, 8, 8, 3)))  # type: ignore[arg-type]


def test_an_array_is_not_printed() -> None:
    with pytest.raises(InputTypeError, match=r"not uint8 of shape \(500, 84, 84, 3\)") as caught:
        open_clips(np.zeros((500, 84, 84, 3), np.uint8), (84, 84), "video_hard")  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200
