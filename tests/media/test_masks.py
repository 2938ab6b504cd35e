"""What a mask file means, for files of drawing and labelling programs, and what is said and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from samg_fast.errors import FileError
from samg_fast.media import read_mask, read_masked_image, write_image

Said = Callable[[], str]

LABELS = np.zeros((60, 80), np.uint8)
LABELS[5:25, 5:25], LABELS[5:25, 40:60], LABELS[35:55, 20:60] = 1, 2, 3
TARGET = LABELS == 3
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, *[64, 64, 64] * 251, 224, 224, 192]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """Return what was said, as one text."""
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def save(path: Path, values: NDArray[np.uint8], palette: list[int] | None = None) -> Path:
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
        assert image.mode == "P"
    image.save(path)
    return path


def with_border(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a border of 255 around every label, as PASCAL VOC does."""
    around = np.asarray(Image.fromarray((labels > 0).astype(np.uint8)).filter(ImageFilter.MaxFilter(5)))
    return np.where((around > 0) & (labels == 0), 255, labels).astype(np.uint8)


class TestPlain:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA"])
    def test_black_and_white_needs_no_words(self, tmp_path: Path, mode: str, said: Said) -> None:
        path = tmp_path / ("a.tif" if mode == "PA" else "a.png")
        image = Image.fromarray(np.where(TARGET, 255, 0).astype(np.uint8))
        if mode == "PA":
            image = image.convert("P")
        image.convert(mode).save(path)
        assert np.array_equal(read_mask(path), TARGET)
        assert said() == ""

    def test_what_the_product_writes(self, tmp_path: Path, said: Said) -> None:
        for mask in (TARGET, ~TARGET, np.zeros_like(TARGET), np.ones_like(TARGET)):
            write_image(tmp_path / "a.png", mask)
            assert np.array_equal(read_mask(tmp_path / "a.png"), mask)
        assert said() == ""

    @pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 200), (16, 235), (100, 200), (150, 180)])
    def test_the_brighter_of_two_shades(self, tmp_path: Path, low: int, high: int, said: Said) -> None:
        path = save(tmp_path / "a.png", np.where(TARGET, high, low).astype(np.uint8))
        assert np.array_equal(read_mask(path), TARGET)
        assert f"{low} and {high}, {high} is the mask" in said()

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        Image.fromarray(np.where(TARGET, 65535, 0).astype(np.uint16)).save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), TARGET)
        Image.fromarray(LABELS.astype(np.uint16) * 1000).save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), LABELS > 0)
        assert np.array_equal(read_mask(tmp_path / "a.png", label=3000), TARGET)


class TestSoft:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
    @pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (90, 200, 30)])
    def test_smooth_edges(self, tmp_path: Path, suffix: str, colour: tuple[int, int, int], said: Said) -> None:
        large = Image.new("RGB", (640, 480))
        ImageDraw.Draw(large).ellipse((160, 120, 480, 400), fill=colour)
        small = large.resize((160, 120), Image.Resampling.BOX)
        small.save(tmp_path / f"a.{suffix}")
        expected = np.asarray(small).max(axis=2) > max(colour) / 2
        assert (read_mask(tmp_path / f"a.{suffix}") != expected).mean() < 0.01
        assert "brighter than half" in said()

    def test_a_wide_soft_edge(self, tmp_path: Path, said: Said) -> None:
        image = Image.fromarray(np.where(TARGET, 255, 0).astype(np.uint8).repeat(4, 0).repeat(4, 1))
        image.filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "a.png")
        expected = TARGET.repeat(4, 0).repeat(4, 1)
        assert (read_mask(tmp_path / "a.png") != expected).mean() < 0.02
        assert "shades: those brighter than half" in said()


class TestAlpha:
    @pytest.mark.parametrize("layer", [255, 0, 120])
    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_that_varies_is_the_mask(self, tmp_path: Path, layer: int, mode: str, said: Said) -> None:
        image = Image.new("RGB", (80, 60), (layer, layer, layer))
        image.putalpha(Image.fromarray(np.where(TARGET, 255, 0).astype(np.uint8)))
        image.convert(mode).save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), TARGET)
        assert "transparency is the mask" in said()

    def test_of_indexed_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(LABELS)
        image.putpalette(VOC)
        image.save(tmp_path / "a.png", transparency=0)
        assert np.array_equal(read_mask(tmp_path / "a.png"), LABELS > 0)

    def test_half_transparent(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (80, 60), (255, 0, 0))
        image.putalpha(Image.fromarray(np.where(TARGET, 255, 128).astype(np.uint8)))
        image.save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), TARGET)

    @pytest.mark.parametrize("alpha", [0, 128, 255])
    def test_that_is_the_same_everywhere_counts_for_nothing(self, tmp_path: Path, alpha: int) -> None:
        image = Image.fromarray(np.where(TARGET, 255, 0).astype(np.uint8)).convert("RGB")
        image.putalpha(alpha)
        image.save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), TARGET)

    def test_of_a_picture_that_is_black_but_for_the_target(self, tmp_path: Path, said: Said) -> None:
        image = Image.new("RGB", (80, 60), (10, 200, 30))
        image.putalpha(Image.fromarray(np.where(TARGET, 255, 0).astype(np.uint8)))
        image.save(tmp_path / "a.png")
        assert np.array_equal(read_masked_image(tmp_path / "a.png").any(axis=2), TARGET)
        assert "read as black" in said()


class TestLabels:
    @pytest.mark.parametrize("palette", [None, VOC, [250, 250, 250, 10, 10, 10, 0, 0, 90, 200, 0, 0]])
    def test_all_but_0_count(self, tmp_path: Path, palette: list[int] | None, said: Said) -> None:
        path = save(tmp_path / "a.png", LABELS, palette)
        assert np.array_equal(read_mask(path), LABELS > 0)
        assert "labels 1, 2, 3 together are the mask" in said()

    @pytest.mark.parametrize("palette", [None, VOC])
    @pytest.mark.parametrize("label", [0, 1, 2, 3])
    def test_one_by_its_name(self, tmp_path: Path, palette: list[int] | None, label: int, said: Said) -> None:
        path = save(tmp_path / "a.png", LABELS, palette)
        assert np.array_equal(read_mask(path, label=label), label == LABELS)
        assert said() == ""

    @pytest.mark.parametrize("palette", [None, VOC])
    @pytest.mark.parametrize("only", [3, 15])
    def test_255_beside_them_is_not_judged(
        self,
        tmp_path: Path,
        palette: list[int] | None,
        only: int,
        said: Said,
    ) -> None:
        path = save(tmp_path / "a.png", with_border(LABELS), palette)
        assert np.array_equal(read_mask(path), LABELS > 0)
        path = save(tmp_path / "b.png", with_border(np.where(TARGET, only, 0).astype(np.uint8)), palette)
        assert np.array_equal(read_mask(path), TARGET)
        assert f"label {only} is the mask, 0 is background and 255 is not judged" in said()

    def test_larger_ones(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", LABELS * 60)
        assert np.array_equal(read_mask(path), LABELS > 0)

    def test_colours_on_black(self, tmp_path: Path, said: Said) -> None:
        colours = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)
        path = save(tmp_path / "a.png", colours[LABELS])
        assert np.array_equal(read_mask(path), LABELS > 0)
        assert "all its 3 colours but black are the mask" in said()

    def test_colours_of_pascal_voc(self, tmp_path: Path) -> None:
        palette = np.reshape(VOC, (-1, 3)).astype(np.uint8)
        path = save(tmp_path / "a.png", palette[with_border(LABELS)])
        assert np.array_equal(read_mask(path), LABELS > 0)


class TestTwoColours:
    @pytest.mark.parametrize(
        ("other", "target"),
        [
            ((0, 0, 0), (255, 255, 255)),
            ((10, 10, 10), (250, 250, 250)),
            ((0, 0, 128), (255, 255, 0)),
            ((0, 0, 0), (255, 0, 0)),
        ],
    )
    @pytest.mark.parametrize("target_index", [0, 1])
    def test_the_brighter_whatever_its_index(
        self, tmp_path: Path, other: tuple[int, ...], target: tuple[int, ...], target_index: int
    ) -> None:
        palette = [*target, *other] if target_index == 0 else [*other, *target]
        path = save(tmp_path / "a.png", (bool(target_index) == TARGET).astype(np.uint8), palette)
        assert np.array_equal(read_mask(path), TARGET)
        image = Image.open(path).convert("RGB")
        image.save(path)
        assert np.array_equal(read_mask(path), TARGET)


class TestUnclear:
    @pytest.mark.parametrize(
        ("values", "holds"),
        [
            (LABELS + 1, r"1 \(66.7 %\), 4 \(16.7 %\), 2 \(8.3 %\), 3 \(8.3 %\)"),
            (np.where(TARGET, 2, 1).astype(np.uint8), r"1 \(83.3 %\), 2 \(16.7 %\)"),
            (np.where(TARGET, 255, 1).astype(np.uint8), r"1 \(83.3 %\), 255 \(16.7 %\)"),
            (LABELS * 85, r"0 \(66.7 %\), 255 \(16.7 %\), 85"),
            (np.arange(4800, dtype=np.int64).reshape(60, 80).astype(np.uint8), "256 shades of grey"),
            (np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8), "256 shades of grey"),
        ],
    )
    def test_lists_what_the_file_holds(self, tmp_path: Path, values: NDArray[np.uint8], holds: str) -> None:
        path = save(tmp_path / "a.png", values)
        with pytest.raises(FileError, match=rf"a\.png as a mask: it holds {holds}.*--label N") as caught:
            read_mask(path)
        assert "\n" not in str(caught.value)

    def test_a_photograph(self, tmp_path: Path) -> None:
        photograph = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
        image = Image.fromarray(photograph).resize((80, 60))
        for suffix in ("png", "jpg"):
            image.save(tmp_path / f"a.{suffix}")
            with pytest.raises(FileError, match=r"it is a picture in \d+ colours.*--masked-picture"):
                read_mask(tmp_path / f"a.{suffix}")

    def test_a_picture_that_is_black_but_for_the_target(self, tmp_path: Path) -> None:
        photograph = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(photograph).resize((80, 60)))
        for suffix in ("png", "jpg", "gif"):
            path = save(tmp_path / f"a.{suffix}", np.where(TARGET[..., None], image, np.uint8(0)))
            with pytest.raises(FileError, match=r"it is a picture in \d+ colours.*--masked-picture"):
                read_mask(path)

    def test_colours_without_black(self, tmp_path: Path) -> None:
        colours = np.array([(250, 250, 250), (200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)
        with pytest.raises(FileError, match=r"it holds #fafafa \(66.7 %\).*no black"):
            read_mask(save(tmp_path / "a.png", colours[LABELS]))

    def test_a_label_that_is_not_there(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", LABELS)
        with pytest.raises(FileError, match=r"label 7 is not in it; it holds 0 \(66.7 %\), 3"):
            read_mask(path, label=7)
        Image.fromarray(LABELS).convert("RGB").save(path)
        with pytest.raises(FileError, match=r"it holds colours \(RGB\), not labels"):
            read_mask(path, label=1)

    def test_fractions(self, tmp_path: Path) -> None:
        Image.fromarray(TARGET.astype(np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(FileError, match="its pixels are F"):
            read_mask(tmp_path / "a.tif")
