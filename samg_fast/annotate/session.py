"""What is being annotated: objects, and what was done to them in each frame. No web in here.

A mask is never kept: it follows from what was done, clicks and boxes through the decoder and then the strokes of the
brush. So everything can be undone, and the whole session is one small JSON file that is written after every action.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from samg_fast.annotate.frames import FrameList
from samg_fast.checks import Frame, Mask, check_box, check_number, check_points
from samg_fast.errors import FileError, InputError, SamgError
from samg_fast.files import output_folder, write_text
from samg_fast.media import write_image
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target

__all__ = ["FORMAT", "Found", "Session"]

FORMAT = "samg-fast annotations 1"
_FILE = "annotations.json"
_MOST_POINTS = 20_000  # of a stroke

Action = dict[str, Any]
"""A click ``{"kind", "x", "y", "label"}``, a box ``{"kind", "box"}``, or a stroke ``{"kind", "points", "radius",
"add"}``."""


@dataclass
class _Object:
    """One object, whose name is its key in the session.

    Attributes
    ----------
    done : dict of int to list of Action
        What was done in each frame; a frame with some is a reference.
    """

    done: dict[int, list[Action]] = field(default_factory=dict)
    masks: dict[int, Mask] = field(default_factory=dict)
    target: Target | None = None


@dataclass(frozen=True)
class Found:
    """One object in one frame.

    Attributes
    ----------
    mask : (H, W) bool array
    reference : bool
        Whether it was shown here; otherwise it was found.
    score : float or None
        Of what was found.
    present : bool
    """

    mask: Mask
    reference: bool
    score: float | None
    present: bool


class Session:
    """Objects in some frames, kept in a folder; may be used from several threads.

    Parameters
    ----------
    folder : path
        Where ``annotations.json`` is, or comes to be; an earlier session goes on.
    frames : FrameList
    segmenter : Segmenter

    Raises
    ------
    FileError
        The folder cannot be written into, or holds a session of other frames or a damaged one.
    BundleError
        The bundle is fitted to a target, and takes no prompts.
    """

    def __init__(self, folder: Path, frames: FrameList, segmenter: Segmenter) -> None:
        _ = segmenter.bundle.prompted
        self.frames, self.segmenter = frames, segmenter
        self.folder = output_folder(folder)
        self._held = _held(self.folder)
        self._lock = threading.RLock()
        self._objects: dict[str, _Object] = {}
        self._written: set[str] = set()
        self._of = [frames.name, len(frames), frames.checksum, segmenter.bundle.fingerprint]
        try:
            if (self.folder / _FILE).exists():
                self._read()
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """Names of the objects, in order."""
        return list(self._objects)

    def close(self) -> None:
        """Let another process have the folder. Closing twice does no harm."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def references(self, name: str) -> list[int]:
        """Return the frames in which an object was shown."""
        with self._lock:
            return sorted(self._object(name).masks)

    def add(self, name: str) -> None:
        """Add an object.

        Raises
        ------
        InputError
            There is one of this name, or it is not fit for a file.
        """
        with self._lock:
            self._check_name(name)
            self._replace({**self._objects, name: _Object()})

    def rename(self, name: str, new: str) -> None:
        """Give an object another name; see `add`."""
        with self._lock:
            self._object(name)
            if new == name:
                return
            self._check_name(new)
            self._replace({new if key == name else key: each for key, each in self._objects.items()})

    def remove(self, name: str) -> None:
        """Forget an object."""
        with self._lock:
            self._object(name)
            self._replace({key: each for key, each in self._objects.items() if key != name})

    def act(self, name: str, frame: int, action: Mapping[str, Any]) -> None:
        """Do something to an object in a frame.

        Raises
        ------
        InputError, InputTypeError
            A click is outside the picture, a box has no area, or the action is none.
        """
        with self._lock:
            each, image = self._object(name), self._frame(frame)
            checked = _checked(action, image)
            actions = [*each.done.get(frame, ()), checked]
            self._change(name, frame, actions)

    def undo(self, name: str, frame: int) -> None:
        """Take back the last action in a frame, if there is one."""
        with self._lock:
            each = self._object(name)
            if each.done.get(frame):
                self._change(name, frame, each.done[frame][:-1])

    def look(self, frame: int) -> dict[str, Found]:
        """Return every object in a frame: as it was shown there, or else found by what was shown elsewhere."""
        with self._lock:
            image = self._frame(frame)
            found: dict[str, Found] = {}
            sought = {}
            for name, each in self._objects.items():
                if frame in each.done:
                    mask = each.masks.get(frame, np.zeros(image.shape[:2], np.bool_))
                    found[name] = Found(mask, True, None, bool(mask.any()))
                elif each.target is not None:
                    sought[name] = each.target
            if sought:
                for name, there in self.segmenter.segment(image, sought).found.items():
                    found[name] = Found(there.mask, False, float(there.score), there.present)
            return {name: found[name] for name in self._objects if name in found}

    def save(self) -> list[str]:
        """Write each object's target, its references and their masks; return the files, seen from the folder.

        Raises
        ------
        FileError
            A file cannot be written.
        InputError
            No object has a mask yet.
        """
        with self._lock:
            written: list[str] = []
            shown = {name: each for name, each in self._objects.items() if each.target is not None}
            for name in shown:
                if name not in self._written and (self.folder / f"{name}.safetensors").exists():
                    raise InputError(f"{name}.safetensors is there, and not of this session: rename the object")
            self._written |= set(shown)
            self._keep(self._objects)
            for name, each in shown.items():
                assert each.target is not None
                for stale in (self.folder / name).glob("reference-*.png"):
                    stale.unlink()
                each.target.save(self.folder / f"{name}.safetensors")
                output_folder(self.folder / name)
                written.append(f"{name}.safetensors")
                for number, frame in enumerate(sorted(each.masks)):
                    for file, content in (
                        (f"{name}/reference-{number}.png", self.frames.frames[frame]),
                        (f"{name}/reference-{number}.mask.png", each.masks[frame]),
                    ):
                        write_image(self.folder / file, content)
                        written.append(file)
            if not written:
                raise InputError("there is nothing to save yet: click on an object first")
            return written

    def to_json(self) -> dict[str, Any]:
        """Return the session in values that go into JSON."""
        with self._lock:
            return self._as_json(self._objects)

    def _change(self, name: str, frame: int, actions: list[Action]) -> None:
        """Put other actions in a frame; the mask and the target follow, or nothing changes."""
        each = self._objects[name]
        masks = {**each.masks}
        masks.pop(frame, None)
        mask = self._mask(frame, actions) if actions else None
        if mask is not None and mask.any():
            masks[frame] = mask
        done = {**each.done, frame: actions}
        if not actions:
            del done[frame]
        self._replace({**self._objects, name: _Object(done, masks, self._target(masks))})

    def _replace(self, objects: dict[str, _Object]) -> None:
        """Put other objects in place of those there are, once they are on the disk."""
        self._keep(objects)
        self._objects = objects

    def _mask(self, frame: int, actions: list[Action]) -> Mask:
        image = self._frame(frame)
        clicks = [each for each in actions if each["kind"] == "click"]
        boxes = [each["box"] for each in actions if each["kind"] == "box"]
        mask = np.zeros(image.shape[:2], np.bool_)
        if boxes or any(each["label"] for each in clicks):
            at, labels = [(each["x"], each["y"]) for each in clicks], [each["label"] for each in clicks]
            mask = self.segmenter.propose(image, at, labels, boxes[-1] if boxes else None).best.copy()
        for stroke in (each for each in actions if each["kind"] == "stroke"):
            mask[_painted(stroke, mask.shape)] = stroke["add"]
        return mask

    def _target(self, masks: dict[int, Mask]) -> Target | None:
        if not masks:
            return None
        images = [self.frames.frames[frame] for frame in masks]
        return self.segmenter.identify(images, [*masks.values()])

    def _object(self, name: str) -> _Object:
        if name not in self._objects:
            raise InputError(f"there is no object called {name!r}")
        return self._objects[name]

    def _frame(self, frame: int) -> Frame:
        if not 0 <= frame < len(self.frames):
            raise InputError(f"there is no frame {frame}: there are {len(self.frames)}")
        return self.frames.frames[frame]

    def _check_name(self, name: str) -> None:
        good = isinstance(name, str) and name.isprintable() and 0 < len(name) <= 60 and name.strip(". ") == name
        if not good or any(each in name for each in '/\\:*?"<>|'):
            raise InputError(f"{name!r} is no name of an object: letters, digits, spaces and - are fit for a file")
        if name in self._objects:
            raise InputError(f"two objects cannot both be called {name!r}")

    def _keep(self, objects: dict[str, _Object]) -> None:
        write_text(self.folder / _FILE, json.dumps(self._as_json(objects), indent=1) + "\n")

    def _as_json(self, objects: dict[str, _Object]) -> dict[str, Any]:
        listed = [
            {"name": name, "done": {str(frame): actions for frame, actions in sorted(each.done.items())}}
            for name, each in objects.items()
        ]
        return {"format": FORMAT, "of": self._of, "objects": listed, "written": sorted(self._written)}

    def _read(self) -> None:
        path = self.folder / _FILE
        try:
            kept = json.loads(path.read_bytes())
            if kept["format"] != FORMAT:
                raise ValueError(f"its format is {kept['format']!r}")
            if kept["of"] != self._of:
                raise FileError(f"{path} is of other frames or another bundle: give another folder")
            self._written = {str(name) for name in kept["written"]}
            for given in kept["objects"]:
                self._check_name(given["name"])
                each = self._objects[given["name"]] = _Object()
                for key, actions in given["done"].items():
                    frame = int(key)
                    each.done[frame] = [_checked(action, self._frame(frame)) for action in actions]
                    mask = self._mask(frame, each.done[frame])
                    if mask.any():
                        each.masks[frame] = mask
                each.target = self._target(each.masks)
        except FileError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SamgError) as error:
            raise FileError(f"{path} cannot be read: {error}") from error


def _held(folder: Path) -> int | None:
    """Hold a folder, so that two sessions cannot write over each other; None where the system has no such lock."""
    if sys.platform == "win32":
        return None
    import fcntl

    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise FileError(f"another session has {folder} open: end that one, or give another folder") from error
    return held


def _checked(action: Mapping[str, Any], image: Frame) -> Action:
    """Return an action, checked."""
    kind = action.get("kind")
    if kind == "click":
        at: Any = [[action.get("x"), action.get("y")]]
        ((x, y),) = check_points("the click", at, image.shape).tolist()
        if action.get("label") not in (0, 1):
            raise InputError("the click's label must be 1 (in) or 0 (out)")
        return {"kind": "click", "x": x, "y": y, "label": int(action["label"])}
    if kind == "box":
        return {"kind": "box", "box": list(check_box("the box", action.get("box") or (), image.shape))}
    if kind == "stroke":
        points = action.get("points")
        if not isinstance(points, list) or not 1 <= len(points) <= _MOST_POINTS:
            raise InputError(f"the stroke must have 1 to {_MOST_POINTS} points")
        radius = check_number("the stroke's radius", action.get("radius"), "of 0.5 to 500", lambda r: 0.5 <= r <= 500)
        height, width = image.shape[:2]
        inside = [(min(max(float(x), 0), width - 1), min(max(float(y), 0), height - 1)) for x, y in points]
        at = check_points("the stroke", inside, image.shape).tolist()
        return {"kind": "stroke", "points": at, "radius": radius, "add": bool(action.get("add"))}
    raise InputError(f"an action is a click, a box or a stroke, not {kind!r}")


def _painted(stroke: Action, shape: tuple[int, ...]) -> Mask:
    """Return where a stroke of the brush is, (H, W) bool."""
    picture = Image.new("1", (shape[1], shape[0]))
    draw, radius = ImageDraw.Draw(picture), stroke["radius"]
    points = [tuple(point) for point in stroke["points"]]
    if len(points) > 1:
        draw.line(points, fill=1, width=max(1, round(2 * radius)))
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(picture)
