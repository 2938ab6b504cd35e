"""The page in a real Chromium."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import sync_playwright

import samg_fast
from samg_fast.annotate import FrameList, PageServer, Session
from samg_fast.samples import load_pack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WALKER = load_pack().tasks["walker_walk"]
FRAMES = FrameList("walker.mp4", ("a", "b", "c"), tuple(WALKER.settings["original"][0][:9:4]))


class Desk:
    """A page, its session, and the mouse in pixels of the frame."""

    def __init__(self, page: Any, server: PageServer) -> None:
        self.page, self.server, self.session = page, server, server._session
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.open()

    def open(self) -> None:
        self.page.goto(self.server.url)
        self.page.wait_for_selector("body[data-ready=yes]")

    def at(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.locator("#canvas").bounding_box()
        side = min(box["width"], box["height"])
        left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
        return left + (x + 0.5) * side / 84, top + (y + 0.5) * side / 84

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=4)
        self.page.mouse.up()

    def wait(self, words: str) -> None:
        """Wait until the status line matches."""
        until(lambda: re.search(words, self.page.locator("#status").text_content()))

    def objects(self) -> int:
        """Return how many objects are listed."""
        count: int = self.page.locator("#objects li").count()
        return count

    def figure(self) -> str:
        """Return what is said of the first object in this frame."""
        return str(self.page.locator(".figure").first.text_content()) if self.objects() else ""

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def actions(self, name: str = "object", frame: int = 0) -> list[Any]:
        objects = {each["name"]: each["done"] for each in self.session.to_json()["objects"]}
        done: list[Any] = objects.get(name, {}).get(str(frame), [])
        return done


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def desk(browser: Any, tmp_path: Path) -> Iterator[Desk]:
    with samg_fast.load("tiny", backend="onnxruntime", threads=1) as segmenter:
        server = PageServer(Session(tmp_path / "session", FRAMES, segmenter))
        thread = threading.Thread(target=server.run)
        thread.start()
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        made = Desk(page, server)
        yield made
        assert made.errors == []
        page.close()
        server.stop()
        thread.join(20)


def test_clicks(desk: Desk) -> None:
    desk.page.mouse.click(*desk.at(40, 40))
    desk.wait(r"^\d+ ms$")
    desk.page.mouse.click(*desk.at(5, 5), button="right")
    until(lambda: desk.objects() == 1)
    assert [(each["x"], each["y"], each["label"]) for each in desk.actions()[:1]] == [(40, 40, 1)]
    until(lambda: len(desk.actions()) == 2)
    assert desk.actions()[1] == {"kind": "click", "x": 5.0, "y": 5.0, "label": 0}
    desk.press("Control+z")
    until(lambda: len(desk.actions()) == 1)


def until(condition: Any, seconds: float = 20) -> None:
    """Wait until a callable is true; the page forbids the evaluation by which Playwright would wait."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_box_a_brush_and_the_mask_on_the_canvas(desk: Desk) -> None:
    desk.press("2")
    desk.drag((20, 8), (64, 72))
    until(lambda: len(desk.actions()) == 1)
    assert desk.actions()[0] == {"kind": "box", "box": [20, 8, 64, 72]}
    desk.press("3")
    desk.drag((3, 3), (12, 3))
    until(lambda: len(desk.actions()) == 2)
    assert desk.session.look(0)["object"].mask[3, 3:13].all()
    desk.press("4")
    desk.page.mouse.click(*desk.at(8, 3))
    until(lambda: len(desk.actions()) == 3)
    assert not desk.session.look(0)["object"].mask[3, 8]
    desk.wait(r"^\d+ ms$")
    pixel = "([x, y]) => [...document.querySelector('#canvas').getContext('2d').getImageData(x, y, 1, 1).data]"
    scale = desk.page.evaluate("document.querySelector('#canvas').width / 84")
    red, green, blue, _ = desk.page.evaluate(pixel, [int(3.5 * scale), int(3.5 * scale)])
    assert red > green + 40  # pink is drawn over the blue sky
    assert blue > green + 40


def test_other_frames_show_what_was_found(desk: Desk) -> None:
    desk.press("2")
    desk.drag((20, 8), (64, 72))
    until(lambda: desk.figure() == "shown here")
    desk.press(".")
    until(lambda: re.fullmatch(r"found 0\.\d+", desk.figure()))
    assert desk.page.locator("#frame-number").text_content() == "2 / 3"
    desk.drag((20, 8), (64, 72))  # a second reference
    until(lambda: desk.figure() == "shown here")
    assert desk.session.references("object") == [0, 1]


def test_the_keyboard_alone(desk: Desk) -> None:
    desk.page.locator("#new-name").focus()
    desk.page.keyboard.type("walker 1")
    desk.press("Enter")
    until(lambda: desk.objects() == 1)
    desk.page.locator("#canvas").focus()
    desk.press("ArrowLeft")
    desk.press("Shift+ArrowUp")
    desk.press("Enter")
    until(lambda: len(desk.actions("walker 1")) == 1)
    assert desk.actions("walker 1") == [{"kind": "click", "x": 41.0, "y": 32.0, "label": 1}]
    desk.press("Shift+Enter")
    until(lambda: len(desk.actions("walker 1")) == 2)
    desk.press("?")
    assert desk.page.locator("#help").is_visible()
    desk.press("Escape")
    desk.press("Control+s")
    desk.wait("^Saved 3 files in ")
    assert (desk.session.folder / "walker 1.safetensors").exists()


def test_a_reload_loses_nothing(desk: Desk) -> None:
    desk.press("2")
    desk.drag((20, 8), (64, 72))
    until(lambda: len(desk.actions()) == 1)
    desk.open()
    until(lambda: desk.figure() == "shown here")


def test_a_refusal_is_said(desk: Desk) -> None:
    for _ in range(2):
        desk.page.locator("#new-name").fill("ball")
        desk.press("Enter")
        until(lambda: desk.objects() == 1)
    desk.wait("two objects cannot both be called 'ball'")
    desk.errors.clear()  # Chromium logs every 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(desk: Desk, scheme: str) -> None:
    desk.page.emulate_media(color_scheme=scheme)
    paper = desk.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 24, 28)"}[scheme]
