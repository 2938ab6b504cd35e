"""A session without its page: what is done, undone, kept, found elsewhere and saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast.annotate.frames import FrameList, from_source
from samg_fast.annotate.session import Session
from samg_fast.errors import BundleError, FileError, InputError, InputTypeError
from samg_fast.media import VideoWriter, read_mask, write_image
from samg_fast.samples import load_pack
from samg_fast.segmenter import Segmenter
from support.synthetic_bundle import write_fitted_bundle

WALKER = load_pack().tasks["walker_walk"]
FRAMES = FrameList("walker.mp4", ("a", "b", "c"), tuple(WALKER.settings["original"][0][:9:4]))
CLICK = {"kind": "click", "x": 40, "y": 40, "label": 1}
BOX = {"kind": "box", "box": [20, 8, 64, 72]}


@pytest.fixture(scope="module")
def tiny() -> Iterator[Segmenter]:
    with samg_fast.load("tiny", backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@pytest.fixture
def session(tiny: Segmenter, tmp_path: Path) -> Session:
    made = Session(tmp_path / "session", FRAMES, tiny)
    made.add("walker")
    return made


def mask(session: Session, frame: int = 0) -> Any:
    return session.look(frame)["walker"].mask


def test_a_box_shows_it_here_and_finds_it_elsewhere(session: Session, tiny: Segmenter) -> None:
    assert session.look(0) == {}
    session.act("walker", 0, BOX)
    here = session.look(0)["walker"]
    assert here.reference
    np.testing.assert_array_equal(here.mask, tiny.propose(FRAMES.frames[0], box=BOX["box"]).best)
    there = session.look(2)["walker"]
    assert not there.reference
    target = tiny.identify([FRAMES.frames[0]], [here.mask])
    np.testing.assert_array_equal(there.mask, tiny.segment(FRAMES.frames[2], {"walker": target})["walker"].mask)
    assert there.present


def test_a_second_reference_counts(session: Session, tiny: Segmenter) -> None:
    session.act("walker", 0, BOX)
    session.act("walker", 1, BOX)
    assert session.references("walker") == [0, 1]
    target = tiny.identify([*FRAMES.frames[:2]], [mask(session, 0), mask(session, 1)])
    np.testing.assert_array_equal(mask(session, 2), tiny.segment(FRAMES.frames[2], {"walker": target})["walker"].mask)


def test_everything_can_be_undone(session: Session) -> None:
    session.act("walker", 0, BOX)
    before = mask(session)
    session.act("walker", 0, {"kind": "click", "x": 3, "y": 3, "label": 0})
    session.act("walker", 0, {"kind": "stroke", "points": [[2, 2], [12, 2]], "radius": 2, "add": True})
    assert mask(session)[2, 2:13].all()
    session.act("walker", 0, {"kind": "stroke", "points": [[7, 2]], "radius": 1, "add": False})
    assert not mask(session)[2, 7]
    for _ in range(3):
        session.undo("walker", 0)
    np.testing.assert_array_equal(mask(session), before)
    session.undo("walker", 0)
    session.undo("walker", 0)  # nothing is left to undo
    assert session.look(0) == {}
    assert session.references("walker") == []


def test_a_killed_session_goes_on(session: Session, tiny: Segmenter) -> None:
    session.act("walker", 0, BOX)
    session.act("walker", 0, {"kind": "stroke", "points": [[2, 2]], "radius": 3, "add": True})
    session.add("nothing yet")
    with pytest.raises(FileError, match=r"another session has .* open"):
        Session(session.folder, FRAMES, tiny)
    session.close()
    again = Session(session.folder, FRAMES, tiny)
    assert again.names == ["walker", "nothing yet"]
    np.testing.assert_array_equal(mask(again), mask(session))
    np.testing.assert_array_equal(mask(again, 2), mask(session, 2))
    again.undo("walker", 0)
    assert not mask(again)[2, 2]


def test_what_is_saved_is_what_every_command_takes(session: Session, tiny: Segmenter) -> None:
    with pytest.raises(InputError, match="there is nothing to save yet"):
        session.save()
    session.act("walker", 2, BOX)
    session.act("walker", 0, BOX)
    assert session.save() == [
        "walker.safetensors",
        *[f"walker/reference-{number}{kind}.png" for number in range(2) for kind in ("", ".mask")],
    ]
    target = samg_fast.Target.load(session.folder / "walker.safetensors")
    expected = tiny.identify([FRAMES.frames[0], FRAMES.frames[2]], [mask(session, 0), mask(session, 2)])
    np.testing.assert_allclose(target.sam, expected.sam, atol=1e-6)
    np.testing.assert_array_equal(read_mask(session.folder / "walker" / "reference-1.mask.png"), mask(session, 2))


def test_objects_have_names(session: Session) -> None:
    session.rename("walker", "robot")
    session.rename("robot", "robot")
    session.add("ball")
    assert session.names == ["robot", "ball"]
    session.remove("ball")
    for name in ("robot", "", "../robot", "a/b", ".hidden", "x" * 61, "a\nb", "\ud800"):
        with pytest.raises(InputError, match=r"both be called|is no name of an object"):
            session.add(name)
    for name in ("ball", "walker"):
        with pytest.raises(InputError, match=f"there is no object called '{name}'"):
            session.remove(name)


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        ({"kind": "click", "x": 84, "y": 3, "label": 1}, InputError, r"the click has \(84, 3\), which is not a point"),
        ({"kind": "click", "x": None, "y": 3, "label": 1}, InputTypeError, "the click must be"),
        ({"kind": "click", "x": 4, "y": 3, "label": 7}, InputError, "label must be 1"),
        ({"kind": "box", "box": [3, 3, 3, 9]}, InputError, "the box has no area"),
        ({"kind": "box"}, InputError, "the box must be four numbers"),
        ({"kind": "stroke", "points": [], "radius": 2, "add": True}, InputError, "1 to 20000 points"),
        ({"kind": "stroke", "points": [[1, 1]], "radius": 0, "add": True}, InputError, "radius must be a number"),
        ({"kind": "wave"}, InputError, "an action is a click, a box or a stroke, not 'wave'"),
    ],
)
def test_what_cannot_be_done_changes_nothing(session: Session, action: Any, error: type[Exception], words: str) -> None:
    session.act("walker", 0, BOX)
    before = (session.folder / "annotations.json").read_text()
    with pytest.raises(error, match=words):
        session.act("walker", 0, action)
    assert (session.folder / "annotations.json").read_text() == before
    with pytest.raises(InputError, match="there is no frame 3: there are 3"):
        session.act("walker", 3, CLICK)


def test_other_folders(session: Session, tiny: Segmenter, tmp_path: Path) -> None:
    session.close()
    session.close()
    for other in (FRAMES.frames[:1], FRAMES.frames[::-1]):
        with pytest.raises(FileError, match="is of other frames or another bundle: give another folder"):
            Session(session.folder, FrameList("walker.mp4", FRAMES.names[: len(other)], other), tiny)
    with (
        samg_fast.load(write_fitted_bundle(tmp_path), backend="onnxruntime", threads=1) as fitted,
        pytest.raises(BundleError, match="is fitted to"),
    ):
        Session(tmp_path / "other", FRAMES, fitted)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"objects": [{"name": "../evil", "done": {}}]},
        {"objects": [{"name": "walker"}]},
        {"objects": [{"name": "walker", "done": {"9": []}}]},
        {"objects": 3},
    ],
)
def test_a_damaged_session(session: Session, tiny: Segmenter, change: Any) -> None:
    path = session.folder / "annotations.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    session.close()
    with pytest.raises(FileError, match=r"annotations.json cannot be read: "):
        Session(session.folder, FRAMES, tiny)


def test_a_full_disk_leaves_the_session_as_it_was(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.act("walker", 0, BOX)

    def full(*_: Any) -> None:
        raise FileError("no space left")

    monkeypatch.setattr("samg_fast.annotate.session.write_text", full)
    with pytest.raises(FileError, match="no space left"):
        session.act("walker", 0, CLICK)
    with pytest.raises(FileError, match="no space left"):
        session.remove("walker")
    assert session.to_json()["objects"][0]["done"] == {"0": [BOX]}


def test_saving_keeps_what_is_not_its_own(session: Session) -> None:
    session.act("walker", 0, BOX)
    (session.folder / "walker.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"walker\.safetensors is there, and not of this session: rename the object"):
        session.save()
    session.rename("walker", "robot")
    session.act("robot", 1, BOX)
    assert len(session.save()) == 5
    session.undo("robot", 1)
    assert len(session.save()) == 3
    assert sorted(path.name for path in (session.folder / "robot").iterdir()) == [
        "reference-0.mask.png", "reference-0.png",
    ]  # fmt: skip


def test_frames_that_do_not_fit_are_thinned(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 25) as video:
        for number in range(20):
            video.write(np.full((16, 16, 3), 10 * number, np.uint8))
    assert len(from_source(tmp_path / "v.mp4")) == 20
    thinned = from_source(tmp_path / "v.mp4", room=6 * 16 * 16 * 3)
    assert thinned.names == tuple(f"{number:06d}" for number in range(0, 20, 4))
    assert [round(int(frame.mean()) / 10) for frame in thinned.frames] == [0, 4, 8, 12, 16]
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    assert from_source(tmp_path / "a.png").names == ("a",)
