"""What the formats' own libraries read of what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from samg_fast.errors import InputError
from samg_fast.formats import FORMATS, Job, Result, check_formats
from samg_fast.formats.davis import PALETTE
from samg_fast.media import VideoReader, read_image, read_mask
from samg_fast.objects import Objects
from samg_fast.results import Segmentation

HEIGHT, WIDTH = 40, 60
COUNT = 4


def blob(x: int, y: int, radius: int, hole: int = 0) -> Any:
    """Return a disc, with a hole in its middle."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    apart = (rows - y) ** 2 + (columns - x) ** 2
    return (apart <= radius**2) & (apart >= hole**2)


def segmentation(mask: Any, score: float = 0.9, threshold: float | None = 0.5, seed: int = 0) -> Segmentation:
    rows, columns = np.nonzero(mask)
    box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())) if len(rows) else None
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    frame = blocks.repeat(8, axis=0).repeat(8, axis=1)[: len(mask), :WIDTH]
    return Segmentation(frame=frame, mask=mask, score=score, box=box, timings={"total": 1.0}, threshold=threshold)


def found(number: int) -> dict[str, Segmentation]:
    """Return a ring that moves and a disc that it covers partly, which is absent in the last frame."""
    ring = segmentation(blob(12 + 4 * number, 20, 11, 5), 0.8, seed=number)
    disc = segmentation(blob(30, 18, 8) | blob(52, 32, 4), 0.9 if number < COUNT - 1 else 0.2, seed=number)
    return {"ring": ring, "disc": disc}


def result(name: str, every: dict[str, Segmentation], *times: float) -> Result:
    return Result(name, Objects(frame=next(iter(every.values())).frame, found=every), *times)


def write(folder: Path, kind: str, *, objects: tuple[str, ...] = ("ring", "disc"), **job: Any) -> None:
    writer = FORMATS[kind](Job(folder, objects, **job))
    for number in range(COUNT):
        every = {name: each for name, each in found(number).items() if name in objects}
        writer.write(result(f"{number:06d}", every, number / 10, 0.1))
    writer.close()
    writer.close()


def ids(number: int) -> Any:
    """Return what belongs to whom: the disc has the better score, where it is present."""
    ring, disc = found(number).values()
    return np.where(disc.mask & disc.present, 2, np.where(ring.mask, 1, 0))


def test_png(tmp_path: Path) -> None:
    write(tmp_path, "png")
    for name in ("ring", "disc"):
        np.testing.assert_array_equal(read_mask(tmp_path / "masks" / name / "000001.png"), found(1)[name].mask)
    (tmp_path / "one").mkdir()
    write(tmp_path / "one", "png", objects=("ring",))
    np.testing.assert_array_equal(read_mask(tmp_path / "one" / "masks" / "000002.png"), found(2)["ring"].mask)


def test_davis(tmp_path: Path) -> None:
    """Colours as DAVIS 2017 has them: 1 is dark red, 2 dark green, 3 dark yellow, 8 darker red."""
    write(tmp_path, "davis")
    for number in range(COUNT):
        with Image.open(tmp_path / "davis" / f"{number:06d}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), ids(number))
            assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # type: ignore[index]
    assert PALETTE[9:12] == [128, 128, 0]
    assert PALETTE[24:27] == [64, 0, 0]
    assert PALETTE[-3:] == [224, 224, 192]


def test_coco(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    write(tmp_path, "coco")
    loaded = coco.COCO(str(tmp_path / "coco.json"))
    assert [each["name"] for each in loaded.loadCats(loaded.getCatIds())] == ["ring", "disc"]
    assert len(loaded.getImgIds()) == COUNT
    for number, image in enumerate(loaded.loadImgs(loaded.getImgIds())):
        assert image == {"id": number + 1, "file_name": f"{number:06d}.png", "width": WIDTH, "height": HEIGHT}
        annotations = loaded.loadAnns(loaded.getAnnIds(image["id"]))
        there = {1: found(number)["ring"]} | ({2: found(number)["disc"]} if number < COUNT - 1 else {})
        assert [each["category_id"] for each in annotations] == list(there)
        for each in annotations:
            expected = there[each["category_id"]]
            np.testing.assert_array_equal(loaded.annToMask(each), expected.mask)
            assert each["area"] == expected.mask.sum()
            x, y, width, height = each["bbox"]
            assert (x, y, x + width - 1, y + height - 1) == expected.box


def test_coco_polygons(tmp_path: Path) -> None:
    """Pycocotools fills them: along edges its pixels may differ from the mask by one."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    write(tmp_path, "coco-polygons")
    loaded = coco.COCO(str(tmp_path / "coco-polygons.json"))
    annotations = loaded.loadAnns(loaded.getAnnIds(1))
    assert [len(each["segmentation"]) for each in annotations] == [1, 2]  # the ring is one piece, the disc has two
    for each, expected in zip(annotations, found(0).values(), strict=True):
        assert np.mean(loaded.annToMask(each) != expected.mask) < 0.03
        rings = [np.array(ring).reshape(-1, 2) for ring in each["segmentation"]]
        np.testing.assert_array_equal(np.any([filled(ring) for ring in rings], axis=0), expected.mask)


def test_npz(tmp_path: Path) -> None:
    """As GR00T reads it: ``arr_0``, (T, H, W) uint8."""
    write(tmp_path, "npz")
    with np.load(tmp_path / "masks.npz") as arrays:
        assert list(arrays) == ["arr_0"]
        assert arrays["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["arr_0"], np.stack([ids(number) for number in range(COUNT)]))
    writer = FORMATS["npz"](Job(tmp_path, ("ring",)))
    writer.write(result("a", {"ring": found(0)["ring"]}))
    small = segmentation(np.ones((40, 60), bool)[:20])
    with pytest.raises(InputError, match=r"format npz is one array: b is \(20, 60\), not \(40, 60\) as those before"):
        writer.write(result("b", {"ring": small}))


def test_yolo(tmp_path: Path) -> None:
    """Its polygon, filled by the even-odd rule, is the mask again, the hole and both pieces included."""
    write(tmp_path, "yolo")
    assert (tmp_path / "yolo" / "data.yaml").read_text() == 'names:\n  0: "ring"\n  1: "disc"\n'
    for number in range(COUNT):
        lines = (tmp_path / "yolo" / "labels" / f"{number:06d}.txt").read_text().splitlines()
        assert [line.split()[0] for line in lines] == (["0", "1"] if number < COUNT - 1 else ["0"])
        for line, expected in zip(lines, found(number).values(), strict=False):
            corners = np.array(line.split()[1:], float).reshape(-1, 2)
            assert corners.min() >= 0
            assert corners.max() <= 1
            np.testing.assert_array_equal(filled(corners * (WIDTH, HEIGHT)), expected.mask)


def filled(corners: Any) -> Any:
    """Fill a polygon: a pixel is inside if a ray to its right crosses an odd number of edges."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            inside ^= ((y0 > y) != (y1 > y)) & (x < at)
    return inside


def test_alpha_pictures(tmp_path: Path) -> None:
    write(tmp_path, "alpha", objects=("ring",))
    with Image.open(tmp_path / "alpha" / "000001.png") as picture:
        assert picture.mode == "RGBA"
        shown = np.asarray(picture)
    np.testing.assert_array_equal(shown[..., :3], found(1)["ring"].frame)
    np.testing.assert_array_equal(shown[..., 3] == 255, found(1)["ring"].mask)
    assert set(np.unique(shown[..., 3])) == {0, 255}


def test_an_alpha_video_is_transparent_where_nothing_is(tmp_path: Path) -> None:
    """FFmpeg's own VP9 decoder leaves the transparency out; libvpx, which browsers have too, does not."""
    write(tmp_path, "alpha", objects=("ring",), fps=10.0)
    with av.open(str(tmp_path / "alpha.webm")) as container:
        stream = container.streams.video[0]
        assert stream.metadata["alpha_mode"] == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        packets = [packet for packet in container.demux(stream) if packet.size]
        shown = [frame for packet in packets for frame in decoder.decode(packet)]  # type: ignore[attr-defined]
    assert len(shown) == COUNT
    for number, frame in enumerate(shown):
        alpha = frame.to_ndarray(format="rgba")[..., 3]
        assert np.mean((alpha > 127) != found(number)["ring"].mask) < 0.01  # lossy at its edge


def test_composites(tmp_path: Path) -> None:
    write(tmp_path, "composite", background="#0a141e")
    shown = read_image(tmp_path / "composites" / "000001.png")
    np.testing.assert_array_equal(shown[ids(1) == 0], np.broadcast_to([10, 20, 30], ((ids(1) == 0).sum(), 3)))
    np.testing.assert_array_equal(shown[ids(1) > 0], found(1)["ring"].frame[ids(1) > 0])
    write(tmp_path, "composite", fps=10.0, background="white")
    assert len(list(VideoReader(tmp_path / "composite.mp4"))) == COUNT


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_finished_where_there_was_no_frame(tmp_path: Path, kind: str) -> None:
    FORMATS[kind](Job(tmp_path, ("ring",), 10.0)).close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "data.yaml"]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_made_is_named(tmp_path: Path, kind: str) -> None:
    """`samg-fast segment` refuses to read what it would write over."""
    for fps in (None, 10.0):
        write(tmp_path, kind, objects=("ring",), fps=fps)
    assert {path.name for path in tmp_path.iterdir()} <= set(FORMATS[kind].made)


def test_names() -> None:
    assert check_formats("coco, png,coco") == [FORMATS["coco"], FORMATS["png"]]
    for names, wrong in (("png,tiff", "'tiff'"), ("", "''")):
        with pytest.raises(InputError, match=f"format must be some of png, davis, coco, .* not {wrong}"):
            check_formats(names)
    with pytest.raises(InputError, match="format alpha shows one object, not 2"):
        FORMATS["alpha"](Job(Path(), ("a", "b")))


def test_a_segmentation_is_what_coco_says(tmp_path: Path) -> None:
    each = found(0)["ring"]
    annotation = each.to_coco()
    assert json.loads(json.dumps(annotation)) == annotation
    assert each.to_dict()["segmentation"] == annotation["segmentation"]
    pieces = each.polygons()
    assert [len(piece) for piece in pieces] == [2]  # a ring and its hole
    picture = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in pieces[0][0].tolist()], fill=1)
    assert np.asarray(picture)[20, 2]
    each.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), each.mask)
    each.save(tmp_path / "mask.json")
    assert json.loads((tmp_path / "mask.json").read_text())["area"] == each.mask.sum()
    with pytest.raises(InputError, match=r"path must end with \.json or one of"):
        each.save(tmp_path / "mask.jpg")
    assert repr(each) == f"Segmentation(60x40 pixels, present, score 0.80, box {each.box}, area {each.area}, 1.0 ms)"
    assert each._repr_png_().startswith(b"\x89PNG")
    assert min(each.plot().size) >= 200  # enlarged


def test_supervision() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    from supervision import Detections

    several = [each.to_supervision(number) for number, each in enumerate(found(0).values())]
    merged = Detections.merge(several)
    assert len(merged) == 2
    np.testing.assert_array_equal(merged.mask[1], found(0)["disc"].mask)  # type: ignore[index]
    assert merged.area.tolist() == [each.area for each in found(0).values()]
    assert len(found(COUNT - 1)["disc"].to_supervision()) == 0  # absent
