"""One target from several reference pictures: how they are pooled, what may be hidden, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import Segmenter, Target, ops
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from support.slow_walk import SlowWalk
from support.synthetic_bundle import picture

SHOTS = [picture(84, 84, seed) for seed in range(3)]
FRAMES, MASKS = [frame for frame, _ in SHOTS], [mask for _, mask in SHOTS]
FEATURES = ("sam", "dino", "parts_sam", "parts_dino")


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def pooled(vectors: Any) -> Any:
    return unit(np.max(vectors, axis=0) + np.mean(vectors, axis=0))


def point_in(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns[len(columns) // 2]), float(rows[len(rows) // 2])


def half(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of a mask right of its middle."""
    return mask & (np.arange(mask.shape[1]) > np.nonzero(mask)[1].mean())


def same(one: Target, other: Target, names: tuple[str, ...] = FEATURES) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def close(one: Target, other: Target) -> bool:
    return all(np.allclose(getattr(one, name), getattr(other, name), atol=1e-6) for name in FEATURES)


@pytest.mark.parametrize("together", [list, tuple, np.stack])
def test_one_picture_in_a_sequence_is_that_picture_to_the_bit(one_segmenter: Segmenter, together: Any) -> None:
    (frame, mask), point = SHOTS[0], point_in(MASKS[0])
    alone = one_segmenter.identify(frame, mask, [point, (3, 5.5)], [half(mask)])
    wrapped = one_segmenter.identify(
        together([frame]), together([mask]), [[point, (3, 5.5)]], together([np.stack([half(mask)])])
    )
    assert same(alone, wrapped)
    assert (alone.part_is_point == wrapped.part_is_point).all()


def test_one_picture_is_pooled_as_the_definition_says_to_the_bit() -> None:
    """The formulas of one picture, in float32 and in this order, are what every published figure was made with."""
    maps = np.random.default_rng(0).standard_normal((64, 24, 24)).astype(np.float32)
    cells = ops.mask_cells(MASKS[0], side=96, grid=24)
    inside = maps[:, cells]
    wanted = (inside.max(axis=1) + inside.mean(axis=1)) / 2
    wanted = wanted / np.linalg.norm(wanted, axis=0, keepdims=True)
    assert np.array_equal(ops.mask_feature(maps, cells), wanted)
    assert np.array_equal(ops.mask_feature(maps[None], cells[None]), wanted)
    assert np.array_equal(ops.point_feature(maps[None], [3.25], [7.5]), ops.point_feature(maps, 3.25, 7.5))


def test_features_are_pooled_over_the_cells_of_all_pictures(segmenter: Segmenter) -> None:
    pytest.importorskip("onnxruntime")
    points = [[point_in(mask)] for mask in MASKS]
    target = segmenter.identify(FRAMES, MASKS, points, [[half(mask)] for mask in MASKS])
    assert target.part_is_point.tolist() == [False, True]
    spec = segmenter.bundle.manifest.encoder
    walk = SlowWalk(segmenter.bundle.path)
    for number, (whole, parts) in enumerate(((target.sam, target.parts_sam), (target.dino, target.parts_dino))):
        maps = [walk.maps(frame)[number] for frame in FRAMES]
        for got, masks in ((whole, MASKS), (parts[0], [half(mask) for mask in MASKS])):
            cells = [ops.mask_cells(mask, side=spec.side, grid=spec.grid) for mask in masks]
            vectors = [dense[:, y, x] for dense, on in zip(maps, cells, strict=True) for y, x in np.argwhere(on)]
            np.testing.assert_allclose(got, pooled(vectors), atol=1e-5)
        samples = []
        for dense, [(x, y)] in zip(maps, points, strict=True):
            u, v = x / 84 * spec.grid, y / 84 * spec.grid
            left, top = int(u), int(v)
            above = dense[:, top, left] * (left + 1 - u) + dense[:, top, left + 1] * (u - left)
            below = dense[:, top + 1, left] * (left + 1 - u) + dense[:, top + 1, left + 1] * (u - left)
            samples.append(above * (top + 1 - v) + below * (v - top))
        np.testing.assert_allclose(parts[1], pooled(samples), atol=1e-5)


def test_every_picture_counts_and_their_order_does_not(one_segmenter: Segmenter) -> None:
    points, parts = [[point_in(mask)] for mask in MASKS], [[half(mask)] for mask in MASKS]
    target = one_segmenter.identify(FRAMES, MASKS, points, parts)
    back = one_segmenter.identify(FRAMES[::-1], MASKS[::-1], points[::-1], parts[::-1])
    assert close(target, back)
    for left_out in range(3):
        kept = [number for number in range(3) if number != left_out]
        fewer = one_segmenter.identify(
            *([every[number] for number in kept] for every in (FRAMES, MASKS, points, parts))
        )
        assert not any(np.allclose(getattr(target, name), getattr(fewer, name), atol=1e-3) for name in FEATURES)
    assert one_segmenter.segment(FRAMES[0], target).mask.shape == (84, 84)


def test_a_picture_that_comes_twice_changes_nothing(one_segmenter: Segmenter) -> None:
    assert close(
        one_segmenter.identify(FRAMES[:1] * 2, MASKS[:1] * 2, [[point_in(MASKS[0])]] * 2),
        one_segmenter.identify(FRAMES[0], MASKS[0], [point_in(MASKS[0])]),
    )


def test_arrays_and_sequences_are_alike(one_segmenter: Segmenter) -> None:
    points = [[point_in(mask), (1.0, 2.0)] for mask in MASKS]
    lists = one_segmenter.identify(FRAMES, MASKS, points, [[half(mask)] for mask in MASKS])
    parts = np.stack([half(mask) for mask in MASKS])[:, None]
    arrays = one_segmenter.identify(np.stack(FRAMES), np.stack(MASKS), np.array(points), parts)  # type: ignore[arg-type]
    assert same(lists, arrays)


def test_sizes_may_differ(one_segmenter: Segmenter) -> None:
    """A point lies where it was put in each picture, though one is wide and the other square and twice as large."""
    wide, mask = np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64), bool)
    wide[8:24, 32:56], mask[8:24, 32:56] = 255, True
    square, square_mask = np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), bool)
    square[64:96, 16:64], square_mask[64:96, 16:64] = 255, True
    alone = one_segmenter.identify(wide, mask, [(46, 16)])
    both = one_segmenter.identify([wide, square], [mask, square_mask], [[(46, 16)], [(40, 80)]])
    np.testing.assert_allclose(both.parts_sam, alone.parts_sam, atol=1e-3)
    dark = one_segmenter.identify([wide, square], [mask, square_mask], [[(46, 16)], [(80, 40)]])
    assert np.abs(dark.parts_sam - alone.parts_sam).max() > 0.05


class TestHidden:
    def test_a_part_is_learned_from_the_pictures_that_show_it(self, one_segmenter: Segmenter) -> None:
        first, second = half(MASKS[0]), half(MASKS[1])
        target = one_segmenter.identify(
            FRAMES[:2],
            MASKS[:2],
            points=[[(40, 40), None], [None, (30, 20)]],
            parts=[[first, None], [None, second]],
        )
        one = one_segmenter.identify(FRAMES[0], MASKS[0], [(40, 40)], [first])
        two = one_segmenter.identify(FRAMES[1], MASKS[1], [(30, 20)], [second])
        for name in ("parts_sam", "parts_dino"):
            got, of_one, of_two = (getattr(each, name) for each in (target, one, two))
            np.testing.assert_allclose(got, [of_one[0], of_two[0], of_one[1], of_two[1]], atol=1e-6)
        assert target.part_is_point.tolist() == [False, False, True, True]

    @pytest.mark.parametrize("nothing", [(), None, [None]])
    def test_a_picture_may_show_none_of_them(self, one_segmenter: Segmenter, nothing: Any) -> None:
        parts = [half(MASKS[0])]
        target = one_segmenter.identify(FRAMES[:2], MASKS[:2], [[(40, 40)], nothing], [parts, nothing])
        alone = one_segmenter.identify(FRAMES[0], MASKS[0], [(40, 40)], parts)
        for name in ("parts_sam", "parts_dino"):
            np.testing.assert_allclose(getattr(target, name), getattr(alone, name), atol=1e-6)
        assert not same(target, alone, ("sam",))

    def test_not_in_every_picture(self, one_segmenter: Segmenter) -> None:
        with pytest.raises(InputError, match="parts has entry 1 hidden in every picture: at least one must show it"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], parts=[[half(MASKS[0]), None], ()])
        with pytest.raises(InputError, match="points has entry 0 hidden in every picture"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], points=[[None, (1, 1)], [None, (2, 2)]])

    def test_not_of_one_picture(self, one_segmenter: Segmenter) -> None:
        with pytest.raises(InputTypeError, match=r"parts\[0\] must be a \(H, W\) bool array, not None"):
            one_segmenter.identify(FRAMES[0], MASKS[0], parts=[None])  # type: ignore[list-item]


class TestRefused:
    @pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 84, 84, 3), np.uint8)])
    def test_no_picture(self, one_segmenter: Segmenter, nothing: Any) -> None:
        with pytest.raises(InputError, match="image holds no picture: at least one is expected"):
            one_segmenter.identify(nothing, [])

    @pytest.mark.parametrize("images", [FRAMES[:2], np.stack(FRAMES[:2])])
    def test_another_number_of_masks(self, one_segmenter: Segmenter, images: Any) -> None:
        with pytest.raises(InputError, match="mask must have one entry for each of the 2 pictures, not 3"):
            one_segmenter.identify(images, MASKS)
        with pytest.raises(InputError, match="mask must have one entry for each of the 2 pictures, not 1"):
            one_segmenter.identify(images, MASKS[0][None])
        with pytest.raises(InputError, match=r"image must be one .* picture where mask is one mask, not "):
            one_segmenter.identify(images, MASKS[0])
        with pytest.raises(InputError, match="mask must be given where image is several pictures"):
            one_segmenter.identify(images, None)
        with pytest.raises(InputTypeError, match="mask must have one entry for each picture, not be 3"):
            one_segmenter.identify(images, 3)  # type: ignore[arg-type]

    def test_several_masks_for_one_picture(self, one_segmenter: Segmenter) -> None:
        with pytest.raises(InputError, match=r"mask must have the picture's size \(84, 84\), not shape \(2, 84, 84\)"):
            one_segmenter.identify(FRAMES[0], np.stack(MASKS[:2]))

    @pytest.mark.parametrize(
        ("mask", "error", "message"),
        [
            (np.zeros((84, 84), bool), InputError, r"mask\[1\] is empty: at least one pixel must be set"),
            (MASKS[1][:40], InputError, r"mask\[1\] must have the picture's size \(84, 84\), not shape \(40, 84\)"),
            (MASKS[1].astype(np.uint8), InputTypeError, r"mask\[1\] must be a \(H, W\) bool array, not uint8"),
            (None, InputTypeError, r"mask\[1\] must be .*, not None"),
        ],
    )
    def test_a_bad_mask(self, one_segmenter: Segmenter, mask: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            one_segmenter.identify(FRAMES[:2], [MASKS[0], mask])
        if mask is not None:
            with pytest.raises(error, match=message.replace(r"mask\[1\]", r"parts\[1\]\[0\]", 1)):
                one_segmenter.identify(FRAMES[:2], MASKS[:2], parts=[[MASKS[0]], [mask]])

    def test_a_mask_without_a_cell(self, one_segmenter: Segmenter) -> None:
        frame, mask = picture(200, 200)
        speck = np.zeros((200, 200), bool)
        speck[0, 0] = True
        with pytest.raises(InputError, match=r"mask\[1\] reaches no grid cell: it is too small for the encoder's 16"):
            one_segmenter.identify([frame, frame], [mask, speck])

    @pytest.mark.parametrize(
        ("image", "error", "message"),
        [
            (FRAMES[1][..., 0], InputError, r"image\[1\] must be a \(H, W, 3\) uint8 RGB array"),
            (FRAMES[1] / 255, InputTypeError, r"image\[1\] must be .* not float64"),
            (None, InputTypeError, r"image\[1\] must be .* not None"),
        ],
    )
    def test_a_bad_picture(self, one_segmenter: Segmenter, image: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            one_segmenter.identify([FRAMES[0], image], MASKS[:2])

    def test_other_numbers_of_parts(self, one_segmenter: Segmenter) -> None:
        part = half(MASKS[0])
        with pytest.raises(InputError, match=r"parts must have as many entries for each picture, None .*, not 2, 1"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], parts=[[part, part], [part]])
        with pytest.raises(InputError, match=r"points must have as many entries for each picture, .*, not 1, 0, 2"):
            one_segmenter.identify(FRAMES, MASKS, points=[[(1, 1)], (), [(1, 1), (2, 2)]])

    def test_entries_for_another_number_of_pictures(self, one_segmenter: Segmenter) -> None:
        with pytest.raises(
            InputError, match="points must be empty or have one entry for each of the 2 pictures, not 1"
        ):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], points=[[(1, 1)]])
        with pytest.raises(InputError, match="parts must be empty or have one entry for each of the 2 pictures, not 3"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], parts=[[MASKS[0]]] * 3)
        with pytest.raises(InputTypeError, match="parts must be empty or have one entry for each picture, not be 3"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], parts=3)  # type: ignore[arg-type]

    def test_points_and_parts_of_one_picture(self, one_segmenter: Segmenter) -> None:
        """A flat list could be meant for the first picture or for all: it is for neither."""
        with pytest.raises(InputError, match=r"points\[0\] must be a sequence of \(x, y\) points, of shape \(n, 2\)"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], points=[(1, 1), (2, 2)])
        with pytest.raises(InputError, match=r"parts\[0\]\[0\] must have the picture's size \(84, 84\), not shape"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], parts=[half(mask) for mask in MASKS[:2]])

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            ([(84, 3)], r"points\[1\] has \(84, 3\), which is not a point of the picture"),
            ([(np.nan, 3)], r"points\[1\] has \(nan, 3\)"),
            ([None, (3, 84)], r"points\[1\] has \(3, 84\)"),
            ([None, ()], r"points\[1\] has a point without numbers: expected \(x, y\), or None where it is hidden"),
        ],
    )
    def test_bad_points(self, one_segmenter: Segmenter, points: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], points=[[(1, 1)] * len(points), points])

    def test_too_many_parts(self, one_segmenter: Segmenter) -> None:
        parts, points = [[MASKS[0]] * 2, ()], [(), [(40, 40)] * 4]
        assert one_segmenter.identify(FRAMES[:2], MASKS[:2], points, parts).parts == 6
        with pytest.raises(InputError, match="points and parts are 7 together, but bundle synthetic has slots for 6"):
            one_segmenter.identify(FRAMES[:2], MASKS[:2], points, [[MASKS[0]] * 3, ()])


class TestOperations:
    """The definitions on known numbers, and the checks around them."""

    MAPS = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)

    @pytest.mark.parametrize("module", [reference, ops])
    def test_cells_of_all_maps(self, module: Any) -> None:
        cells = np.array([[[True, False], [False, False]], [[False, True], [False, True]]])
        # Channel c of the cells: 4 c of the first map; 4 c + 13 and 4 c + 15 of the second
        wanted = [4 * c + (15 + (0 + 13 + 15) / 3) / 2 for c in range(3)]
        np.testing.assert_allclose(module.mask_feature(self.MAPS, cells), unit(wanted), rtol=1e-6)
        cells[0] = False
        assert np.array_equal(module.mask_feature(self.MAPS, cells), module.mask_feature(self.MAPS[1], cells[1]))

    @pytest.mark.parametrize("module", [reference, ops])
    def test_points_of_all_maps(self, module: Any) -> None:
        # Half-way between the upper cells of the first map, in the last cell of the second
        wanted = [4 * c + (15 + (0.5 + 15) / 2) / 2 for c in range(3)]
        got = module.point_feature(self.MAPS, np.array([0.5, 1.0]), np.array([0.0, 1.0]))
        np.testing.assert_allclose(got, unit(wanted), rtol=1e-6)

    def test_pooling_is_half_maximum_half_mean(self) -> None:
        vectors = np.array([[1, 3], [0, 0], [-4, 2]], np.float32)
        np.testing.assert_allclose(reference.pool_features(vectors), unit([2.5, 0, 0.5]), rtol=1e-6)

    def test_bad_input(self) -> None:
        cells = np.ones((2, 2, 2), bool)
        with pytest.raises(InputError, match=r"cells must have the map's size \(2, 2, 2\), not \(2, 2\)"):
            ops.mask_feature(self.MAPS, cells[0])
        with pytest.raises(InputError, match="cells is empty: at least one must be set"):
            ops.mask_feature(self.MAPS, ~cells)
        with pytest.raises(
            InputTypeError, match=r"cells must be a bool array of shape \(2, 2, 2\), not uint8 of shape"
        ):
            ops.mask_feature(self.MAPS, cells.astype(np.uint8))  # type: ignore[arg-type]
        with pytest.raises(InputTypeError, match="features must be float32"):
            ops.mask_feature(self.MAPS.astype(np.float64), cells)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"x and y must have one number for each map, so shape \(2,\), not \(\)"):
            ops.point_feature(self.MAPS, 0, 0)
        with pytest.raises(InputError, match=r"x and y must have one number .*shape \(0,\)"):
            ops.point_feature(self.MAPS[:0], np.zeros(0), np.zeros(0))
        with pytest.raises(InputError, match=r"x and y must be from 0 to 2, not \(1, 2\.5\)"):
            ops.point_feature(self.MAPS, np.array([0, 1.0]), np.array([0, 2.5]))
