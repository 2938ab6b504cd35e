"""The clip pack: what ships, what can be built, and that reading it needs no renderer."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from samg_fast.envs.clip_pack import build_pack, main
from samg_fast.envs.tasks import EIGHT
from samg_fast.errors import FileError
from samg_fast.samples import SHIPPED, Pack, PackTask, load_pack, save_pack
from support.paths import ROOT
from support.rendering import needs_rendering


@pytest.fixture
def pack() -> Pack:
    """Return a pack of noise, 13 pixels wide: bits of a row do not fill its bytes."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (3, 9, 13, 3), dtype=np.uint8)
    masks = random.random((3, 9, 13)) < 0.5
    tasks = {name: PackTask(frames[0], masks[0], {"original": (frames, masks)}) for name in ("b_task", "a_task")}
    return Pack(tasks, {"format": 1, "seed": 5})


def test_the_shipped_pack_is_whole_and_small() -> None:
    assert SHIPPED.stat().st_size <= 4_000_000
    shipped = load_pack()
    assert tuple(shipped.tasks) == EIGHT
    assert shipped.about["size"] == 84
    for task in shipped.tasks.values():
        assert (task.reference.shape, task.reference.dtype) == ((84, 84, 3), np.uint8)
        assert (task.reference_mask.shape, task.reference_mask.dtype) == ((84, 84), np.bool_)
        assert task.reference_mask.any()
        assert list(task.settings) == ["original", "video_easy", "video_hard"]
        for frames, masks in task.settings.values():
            assert (frames.shape[1:], frames.dtype) == ((84, 84, 3), np.uint8)
            assert (masks.shape, masks.dtype) == (frames.shape[:3], np.bool_)
            assert len(frames) >= 16
            assert masks.any(axis=(1, 2)).all()
            assert all((after != before).any() for before, after in pairwise(frames))


def test_the_shipped_settings_show_the_same_robot_before_other_backgrounds() -> None:
    for task in load_pack().tasks.values():
        original, truth = task.settings["original"]
        easy, hard = task.settings["video_easy"][0], task.settings["video_hard"][0]
        for frames, masks in task.settings.values():
            np.testing.assert_array_equal(masks, truth)
            np.testing.assert_array_equal(frames[truth], original[truth])
        changed = (easy != original).any(axis=-1)
        # What video_easy replaces, video_hard replaces by the same clip, and more.
        np.testing.assert_array_equal(hard[changed], easy[changed])
        assert (hard != original).any(axis=-1).sum() > changed.sum() > 0


def test_a_pack_comes_back_as_it_was(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "pack.npz"
    save_pack(pack, path)
    back = load_pack(path)
    assert list(back.tasks) == ["b_task", "a_task"]
    assert back.about == {"format": 1, "seed": 5}
    for name, task in pack.tasks.items():
        read = back.tasks[name]
        np.testing.assert_array_equal(read.reference, task.reference)
        np.testing.assert_array_equal(read.reference_mask, task.reference_mask)
        for wrote, found in zip(task.settings["original"], read.settings["original"], strict=True):
            np.testing.assert_array_equal(found, wrote)
            assert found.dtype == wrote.dtype


def test_reading_needs_neither_mujoco_nor_opengl() -> None:
    code = """
import sys
for name in ("mujoco", "dm_control", "OpenGL", "glfw", "gymnasium", "torch"):
    sys.modules[name] = None
from samg_fast.samples import load_pack
print(len(load_pack().tasks))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (run.returncode, run.stdout) == (0, "8\n"), run.stderr


def test_a_bad_file_is_named(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "pack.npz"
    with pytest.raises(FileError, match=r"cannot read the clip pack .*pack\.npz: No such file"):
        load_pack(path)
    save_pack(pack, path)
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(altered), b"", b"not a pack at all"):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"pack\.npz"):
            load_pack(path)
    np.savez(path, frames=np.zeros(3))
    with pytest.raises(FileError, match="not a whole clip pack"):
        load_pack(path)
    save_pack(Pack(pack.tasks, {"format": 2}), path)
    with pytest.raises(FileError, match="format 2, this version reads 1"):
        load_pack(path)


def test_a_pack_that_cannot_be_written_is_named(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"):
        save_pack(pack, tmp_path / "missing" / "pack.npz")


@needs_rendering
def test_building_is_deterministic_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in paths:
        assert main([str(path), "--tasks", "finger_spin", "--frames", "2", "--size", "24"]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "one.npz: 1 tasks" in capsys.readouterr().out
    task = load_pack(paths[0]).tasks["finger_spin"]
    assert task.settings["video_hard"][0].shape == (2, 24, 24, 3)
    assert (task.reference != task.settings["original"][0][0]).any()


@needs_rendering
def test_the_settings_and_tasks_asked_for_are_built() -> None:
    said: list[str] = []
    built = build_pack(["pendulum_swingup"], ["color_easy"], frames=1, size=16, progress=said.append)
    assert list(built.tasks["pendulum_swingup"].settings) == ["color_easy"]
    assert said == ["pendulum_swingup color_easy"]


def test_a_wrong_name_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "pack.npz"), "--tasks", "walker_wlk"]) == 1
    assert "did you mean walker_walk" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
