"""What all wrappers share: where the pictures are, what a mode shows, and what a lost target becomes."""

from __future__ import annotations

import pytest

pytest.importorskip("dm_env", reason="dm_env is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from dm_env import specs

from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.wrappers.masking import Masking
from samg_fast.wrappers.pixels import find_pixels
from support.pixel_envs import BLUE, GREEN, RED, SIZE, ColourFinder, is_colour, squares, target_of

MODES: dict[Any, int] = {"composite": 3, "mask": 1, "rgbm": 4, "ids": 1}
BOX = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)


def masking(segmenter: Any = None, target: Any = None, reference: Any = None, **changed: Any) -> Masking:
    """Make one of the stand-in, for red squares unless something else is asked for."""
    chosen = {"count": 1, "mode": "composite", "threshold": None, "lost": "empty", **changed}
    given = target_of(RED) if target is None and reference is None else target
    return Masking(segmenter or ColourFinder(), given, reference, **chosen)


def test_modes_show_the_masked_image_the_mask_or_both() -> None:
    frame = squares(3)
    mask = is_colour(frame, RED)
    assert mask.sum() == 16
    composite, mask_one, both, ids = (masking(mode=mode)(frame[None])[0] for mode in MODES)
    assert np.array_equal(composite, frame * mask[..., None])
    assert np.array_equal(mask_one, 255 * mask[..., None])
    assert np.array_equal(both[..., :3], frame)
    assert np.array_equal(both[..., 3:], mask_one)
    assert {each.dtype for each in (composite, mask_one, both)} == {np.dtype(np.uint8)}
    assert np.array_equal(ids, mask[..., None])
    assert [each.shape[-1] for each in (composite, mask_one, both, ids)] == list(MODES.values())
    assert [masking(mode=mode).channels for mode in MODES] == list(MODES.values())


def test_each_environment_has_its_target_and_all_are_segmented_as_one_batch() -> None:
    segmenter = ColourFinder()
    frames = np.stack([squares(t) for t in range(3)])
    shown = masking(segmenter, [target_of(c) for c in (BLUE, RED, GREEN)], count=3, mode="mask")(frames)
    for frame, image, channel in zip(frames, shown, (BLUE, RED, GREEN), strict=True):
        assert np.array_equal(image[..., 0] > 0, is_colour(frame, channel))
    assert segmenter.batches == [3]


def test_a_target_is_identified_once_with_the_first_frame() -> None:
    segmenter = ColourFinder()
    image, mask = squares(0), is_colour(squares(0), RED)
    two = masking(segmenter, reference=(image, mask, [(1, 2)]), count=2)
    assert (segmenter.identified, two.targets) == ([], [])
    for _ in range(3):
        two(np.stack([image, image]))
    assert len(segmenter.identified) == 1
    assert segmenter.identified[0] == (image, mask, [(1, 2)])
    assert len(two.targets) == 2


def test_a_failed_identification_is_tried_again() -> None:
    class Picky(ColourFinder):
        def identify(self, *reference: Any) -> Any:
            if not self.identified:
                self.identified.append(reference)
                raise InputError("mask is empty: at least one pixel must be set")
            return super().identify(*reference)

    one = masking(Picky(), reference=(squares(0), is_colour(squares(0), RED)))
    with pytest.raises(InputError, match="mask is empty"):
        one(squares(0)[None])
    assert one(squares(0)[None]).any()


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("empty", ["none", "own", "none", "none", "own"]),
        ("hold", ["none", "own", "held", "held", "own"]),
        ("frame", ["all", "own", "all", "all", "own"]),
    ],
)
def test_masks_of_a_lost_target(lost: str, expected: list[str]) -> None:
    one = masking(ColourFinder([0.2, 0.5, 0.49, float("nan"), 0.8]), threshold=0.5, lost=lost, mode="mask")
    for t, what in enumerate(expected):
        masks = {
            "none": np.zeros((SIZE, SIZE), bool),
            "all": np.ones((SIZE, SIZE), bool),
            "own": is_colour(squares(t), RED),
            "held": is_colour(squares(1), RED),
        }
        shown = one(squares(t)[None])
        assert np.array_equal(shown[0, ..., 0] > 0, masks[what]), (t, what)
        assert one.segmentations[0].mask.sum() == 16  # what was found can still be seen


def test_a_lost_target_passes_the_whole_frame_through() -> None:
    one = masking(ColourFinder([0.1]), threshold=0.5, lost="frame")
    assert np.array_equal(one(squares(0)[None])[0], squares(0))


def test_no_target_is_lost_by_default_unless_the_bundle_says_so() -> None:
    assert masking(ColourFinder([-0.2]))(squares(0)[None]).astype(bool).sum() == 16
    scores = [0.39, 0.4]
    finder = ColourFinder([*scores, *scores, -0.5])
    finder.bundle = SimpleNamespace(**{**vars(finder.bundle), "manifest": SimpleNamespace(present=0.4)})
    assert [masking(finder)(squares(0)[None]).any() for _ in scores] == [False, True]
    assert [masking(finder, lost="frame", mode="mask")(squares(0)[None]).all() for _ in scores] == [True, False]
    assert masking(finder, threshold=-1.0)(squares(0)[None]).any()


def test_no_mask_is_held_beyond_its_episode() -> None:
    targets = [target_of(RED), target_of(GREEN)]
    two = masking(ColourFinder([0.9, 0.9, 0.1, 0.1]), targets, count=2, threshold=0.5, lost="hold", mode="mask")
    two(np.stack([squares(0), squares(0)]))
    two.start_episodes([1])
    held, begun = two(np.stack([squares(5), squares(5)]))
    assert np.array_equal(held[..., 0] > 0, is_colour(squares(0), RED))
    assert not begun.any()


def test_an_additional_frame_does_not_change_the_segmentations() -> None:
    segmenter = ColourFinder()
    two = masking(segmenter, [target_of(RED), target_of(GREEN)], count=2, mode="mask")
    two(np.stack([squares(0), squares(0)]))
    before = two.segmentations
    assert np.array_equal(two.mask_one(squares(4), 1)[..., 0] > 0, is_colour(squares(4), GREEN))
    assert two.segmentations is before
    assert segmenter.batches == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"mode": "masks"}, InputError, r"mode must be composite, mask, rgbm or ids, not 'masks'"),
        ({"lost": "keep"}, InputError, r"lost must be empty, hold or frame, not 'keep'"),
        (
            {"lost": "hold"},
            InputError,
            r"lost is 'hold', but without a threshold .* lost, and bundle colours states none: give both",
        ),
        ({"threshold": "0.5"}, InputTypeError, r"threshold must be a number or None, not '0.5'"),
        ({"threshold": True}, InputTypeError, r"threshold must be a number or None, not True"),
        ({"threshold": float("nan")}, InputError, r"threshold must be a finite number, not nan"),
        ({"segmenter": "tiny"}, InputTypeError, r"segmenter must be what samg_fast.load gives, not 'tiny'"),
        ({"target": 3}, InputTypeError, r"target must be a samg_fast.Target, not int"),
        ({"target": "walker.safetensors"}, InputTypeError, r"target must be a samg_fast.Target, not str"),
        (
            {"target": [target_of(RED), None], "count": 2},
            InputTypeError,
            r"target\[1\] must be a samg_fast.Target, not NoneType",
        ),
        ({"target": [target_of(RED)] * 2, "count": 3}, InputError, r"one Target or 3 of them, one for each.*not 2"),
        ({"target": target_of(RED), "reference": (1, 2)}, InputError, r"target or reference must be given, one of"),
        ({"reference": squares(0)}, InputTypeError, r"reference must be \(image, mask\), .* not uint8 of shape"),
        ({"reference": (squares(0),)}, InputTypeError, r"reference must be \(image, mask\), .* not tuple"),
        (
            {"target": target_of(RED, "0" * 64)},
            BundleError,
            r"^target was made with another version of bundle colours, this segmenter runs colours: identify it again$",
        ),
        ({"target": [target_of(RED, "0" * 64)]}, BundleError, r"^target\[0\] was made with another version of bundle"),
        ({"target": target_of(RED, parts=3)}, InputError, r"^target has 3 parts, but bundle colours has slots for 2"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        masking(**arguments)


def test_neither_target_nor_reference() -> None:
    with pytest.raises(InputError, match="target or reference must be given"):
        Masking(ColourFinder(), None, None, count=1, mode="mask", threshold=None, lost="empty")


@pytest.mark.parametrize(
    ("spec", "key", "error", "sentence"),
    [
        (
            {"camera": BOX, "state": BOX},
            "pixels",
            InputError,
            r"pixels_key must be one of the observation's 'camera', ",
        ),
        ({"camera": BOX}, None, InputError, r"one of the observation's 'camera', not None"),
        ({"a": {"b": BOX}}, "a", InputError, r"a path .* such as \('a', 'b'\), as observation\['a'\] holds 'b'"),
        ({"a": {"b": BOX}}, ("a", "c"), InputError, r"one of the observation\['a'\]'s 'b', not 'c'"),
        ({"a": BOX}, ("a", "c"), InputError, r"must end with 'a', as observation\['a'\] is one array"),
        ((BOX, BOX), None, InputError, r"one of the observation's 0, 1, not None"),
        ((BOX, BOX), 2, InputError, r"one of the observation's 0, 1, not 2"),
        ({"camera": BOX}, 3.5, InputTypeError, r"pixels_key must be a name, an index, .* or None, not 3\.5"),
        ({"camera": BOX}, {"camera"}, InputTypeError, r"pixels_key must be a name, an index, "),
        (BOX, "pixels", InputError, r"pixels_key must be None where the observation is one array, not 'pixels'"),
        (
            {"state": specs.Array((SIZE, SIZE, 3), np.float32)},
            "state",
            InputTypeError,
            r"observation\['state'\] must be uint8 RGB of shape \(H, W, 3\), not float32 of shape \(24, 24, 3\)",
        ),
        (gymnasium.spaces.Box(0, 255, (9, SIZE, SIZE), np.uint8), None, InputError, r"mask frames before they are sta"),
        (gymnasium.spaces.Box(0, 255, (3,), np.uint8), None, InputError, r"not uint8 of shape \(3,\)"),
        (gymnasium.spaces.Discrete(3), None, InputTypeError, r"observation must be uint8 RGB .* not Discrete"),
    ],
)
def test_observations_without_images_get_a_sentence(
    spec: Any, key: str | None, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        find_pixels(spec, key)


@pytest.mark.parametrize(
    ("image", "error", "sentence"),
    [
        (squares(0).astype(np.float32), InputTypeError, r"\['rgb'\] must be uint8 RGB of shape .*, not float32 of"),
        (squares(0)[:-1], InputError, r"of shape \(24, 24, 3\), not uint8 of shape \(23, 24, 3\)"),
        (None, InputTypeError, r"of shape \(24, 24, 3\), not None"),
    ],
)
def test_an_image_that_does_not_match_its_space_gets_a_sentence(
    image: Any, error: type[Exception], sentence: str
) -> None:
    pixels, _ = find_pixels({"rgb": BOX}, "rgb")
    with pytest.raises(error, match=sentence):
        pixels.read({"rgb": image})


def test_an_observation_without_its_image_gets_a_sentence() -> None:
    pixels, _ = find_pixels({"rgb": BOX}, "rgb")
    with pytest.raises(
        InputError, match=r"observation must have 'rgb', as its space or spec says, not only 'time', 't'"
    ):
        pixels.read({"time": 3, "t": 4})
