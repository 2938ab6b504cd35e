"""What stands where the target does not."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samg_fast.background import Backgrounds, composite
from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.media import VideoWriter, write_image
from support.synthetic_bundle import picture

FRAME, MASK = picture(40, 60)


def outside(background: Any, **options: Any) -> Any:
    """Return the pixels outside the mask; check those inside."""
    shown = composite(FRAME, MASK, background, **options)
    assert shown.shape == FRAME.shape
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[MASK], FRAME[MASK])
    return shown[~MASK]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a red picture, and below it a video that is green and then blue."""
    folder = tmp_path / "behind"
    (folder / "more").mkdir(parents=True)
    write_image(folder / "red.png", np.full((30, 90, 3), (200, 0, 0), np.uint8))
    (folder / "notes.txt").write_text("no picture")
    with VideoWriter(folder / "more" / "video.mp4", 25) as video:
        for color in ((0, 200, 0), (0, 0, 200)):
            video.write(np.full((64, 64, 3), color, np.uint8))
    return folder


@pytest.mark.parametrize(
    ("background", "color"),
    [(None, 0), ("black", 0), ("white", 255), ("#102030", (16, 32, 48)), ((1, 2, 3), (1, 2, 3)), ("lime", (0, 255, 0))],
)
def test_colours(background: Any, color: Any) -> None:
    assert (outside(background) == color).all()


def test_noise_is_seeded() -> None:
    noise = outside("noise", seed=1)
    assert 100 < noise.mean() < 155
    assert noise.std() > 60
    np.testing.assert_array_equal(noise, outside("noise", seed=1))
    assert not np.array_equal(noise, outside("noise", seed=2))


def test_the_frame_itself() -> None:
    grey = outside("grey")
    assert (grey == grey[:, :1]).all()
    np.testing.assert_allclose(grey[:, 0], FRAME[~MASK] @ (0.299, 0.587, 0.114), atol=1)  # ITU-R BT.601
    assert np.abs(np.diff(outside("blur").astype(int), axis=0)).mean() < 5
    assert np.abs(np.diff(FRAME[~MASK].astype(int), axis=0)).mean() > 5


def test_a_picture_fills_the_frame_without_distortion() -> None:
    """Of a picture twice as wide as the frame needs, a quarter is cut off at either side."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 15:45, 1] = 255
    assert outside(wide)[..., 1].min() > 150  # the seams are smoothed
    assert outside(wide)[..., 0].max() == 0


def test_files(folder: Path) -> None:
    assert (outside(folder / "red.png") == (200, 0, 0)).all()
    assert np.abs(outside(str(folder / "more" / "video.mp4")) - (0, 200, 0)).max() < 12  # lossy
    seen = {tuple((outside(folder, seed=seed)[0] > 100).tolist()) for seed in range(12)}
    assert seen == {(True, False, False), (False, True, False)}


def test_a_video_moves_on_and_begins_again(folder: Path) -> None:
    backgrounds = Backgrounds(folder / "more", 2)

    def channel(which: int) -> int:
        return int(backgrounds.behind(FRAME[None], [which])[0, 0, 0].argmax())

    assert [channel(0) for _ in range(5)] == [1, 2, 1, 2, 1]
    assert channel(1) == 1  # the other environment's own
    backgrounds.start_episodes([0])
    assert [channel(0), channel(1)] == [1, 2]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_draws_on_its_own(folder: Path, copied: Any) -> None:
    backgrounds = Backgrounds(folder, 3)
    backgrounds.seed(5)
    backgrounds.behind(FRAME[None], [0])
    other = copied(backgrounds)
    for _ in range(2):
        shown = [each.behind(np.stack([FRAME, FRAME]), [1, 2]) for each in (backgrounds, other)]
        np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize(
    ("background", "error", "words"),
    [
        ("blurry", InputError, "background must be a colour, noise, blur, grey, gray, or a picture, video or folder"),
        ((1, 2, 256), InputError, "three numbers from 0 to 255, not (1, 2, 256)"),
        ((1, 2), InputTypeError, "background must be a colour, a word, a picture or a path, not tuple"),
        (7, InputTypeError, "not 7"),
        (np.zeros((3, 3, 3)), InputTypeError, "background must be a (H, W, 3) uint8 RGB array"),
        (Path("nowhere.png"), FileError, "nowhere.png: no such file"),
    ],
)
def test_what_is_none(background: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        composite(FRAME, MASK, background)
    assert words in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="the folder has neither pictures nor videos"):
        Backgrounds(tmp_path)
