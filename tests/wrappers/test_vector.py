"""`MaskedObservation` of vector environments: one batch for all, a target each, and every autoreset mode."""

from __future__ import annotations

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("dm_env", reason="dm_env is not installed")  # pixel_envs speaks both

import copy
import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import samg_fast
from samg_fast.errors import BundleError, InputError, InputTypeError, SamgError
from samg_fast.wrappers.gymnasium import MaskedObservation as MaskedSingle
from samg_fast.wrappers.vector import MaskedObservation
from support.pixel_envs import BLUE, GREEN, RED, SIZE, ColourFinder, SquaresGym, is_colour, squares, target_of

CHANNELS = {"composite": 3, "mask": 1, "rgbm": 4}
COLOURS = (RED, GREEN, BLUE)


def squares_of(lengths: tuple[int, ...] = (2, 3, 5), **arguments: Any) -> list[Callable[[], SquaresGym]]:
    """Make environments whose episodes end at different steps."""
    return [partial(SquaresGym, length=length, **arguments) for length in lengths]


def actions(env: Any) -> Any:
    return np.zeros(env.action_space.shape, np.float32)


@pytest.mark.parametrize("vectorised", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("key", [None, "rgb"])
@pytest.mark.parametrize("mode", CHANNELS)
def test_each_environment_shows_its_own_target(vectorised: Any, key: str | None, mode: Any) -> None:
    segmenter, bare = ColourFinder(), SyncVectorEnv(squares_of(key=key))
    targets = [target_of(colour) for colour in COLOURS]
    env = MaskedObservation(vectorised(squares_of(key=key)), segmenter, targets, pixels_key=key, mode=mode)
    try:
        outputs = [(bare.reset(seed=1), env.reset(seed=1))]
        outputs += [(bare.step(actions(bare)), env.step(actions(env))) for _ in range(7)]
    finally:
        env.close()
    assert env.closed
    assert segmenter.batches == [3] * 8
    assert env.single_observation_space.shape == ((SIZE, SIZE, CHANNELS[mode]) if key is None else None)
    if key is not None:
        assert list(env.single_observation_space) == list(bare.single_observation_space)
        assert list(env.observation_space) == list(bare.observation_space)
        assert env.observation_space["time"] is env.env.observation_space["time"]
    for expected, got in outputs:
        assert got[0] in env.observation_space
        frames, images = (expected[0], got[0]) if key is None else (expected[0][key], got[0][key])
        masks = np.stack([is_colour(frame, colour) for frame, colour in zip(frames, COLOURS, strict=True)])[..., None]
        shown = {"composite": frames * masks, "mask": 255 * masks, "rgbm": np.concatenate((frames, 255 * masks), -1)}
        assert np.array_equal(images, shown[mode])
        for one, other in zip(expected[1:-1], got[1:-1], strict=True):
            assert np.array_equal(one, other)
        assert expected[-1].keys() == got[-1].keys()
        if key is not None:
            assert np.array_equal(expected[0]["time"], got[0]["time"])


def test_the_environments_buffer_is_unchanged() -> None:
    inside = SyncVectorEnv(squares_of(key="rgb"), copy=False)
    env = MaskedObservation(inside, ColourFinder(), target_of(RED), pixels_key="rgb")
    masked, _ = env.reset(seed=1)
    assert np.array_equal(inside._observations["rgb"][0], inside.envs[0].picture)
    before = masked["rgb"].copy()
    env.step(actions(env))
    assert np.array_equal(masked["rgb"], before)


def test_one_target_is_identified_for_all_environments() -> None:
    segmenter = ColourFinder([0.7, 0.8, 0.9])
    reference = squares(0), is_colour(squares(0), RED)
    env = MaskedObservation(SyncVectorEnv(squares_of()), segmenter, reference=reference)
    assert (env.targets, env.segmentations) == ([], [])
    env.reset()
    assert len(segmenter.identified) == 1
    assert [each.bundle for each in env.targets] == ["colours"] * 3
    assert [each.score for each in env.segmentations] == [0.7, 0.8, 0.9]


def held_and_lost(mode: AutoresetMode, steps: int, vectorised: Any = SyncVectorEnv) -> tuple[Any, list[Any]]:
    """Lose every target at every step but the first, and hold its mask: lengths 2 and 9."""
    segmenter = ColourFinder([0.9, 0.9, *[0.1] * 50])
    inside = vectorised(squares_of((2, 9), key="rgb"), autoreset_mode=mode)
    env = MaskedObservation(
        inside, segmenter, target_of(RED), pixels_key="rgb", mode="mask", threshold=0.5, lost="hold"
    )
    outputs = [env.reset(seed=1)]
    outputs += [env.step(actions(env)) for _ in range(steps)]
    return env, outputs


def shown(observation: Any) -> list[bool]:
    return [bool(image.any()) for image in observation["rgb"]]


def test_next_step_autoreset_holds_no_mask_beyond_its_episode() -> None:
    _, outputs = held_and_lost(AutoresetMode.NEXT_STEP, 4)
    assert [output[0]["time"][0, 0] for output in outputs] == [0, 1, 2, 0, 1]
    assert [shown(output[0]) for output in outputs] == [[True, True]] * 3 + [[False, True]] * 2


@pytest.mark.parametrize("vectorised", [SyncVectorEnv, AsyncVectorEnv])
def test_same_step_autoreset_masks_the_final_observation_too(vectorised: Any) -> None:
    env, outputs = held_and_lost(AutoresetMode.SAME_STEP, 3, vectorised)
    env.close()
    assert [output[0]["time"][0, 0] for output in outputs] == [0, 1, 0, 1]
    assert [shown(output[0]) for output in outputs] == [[True, True]] * 2 + [[False, True]] * 2
    final, other = outputs[2][-1]["final_obs"]
    assert other is None
    assert final in env.single_observation_space
    assert final["time"] == [2]
    assert np.array_equal(final["rgb"][..., 0] > 0, is_colour(squares(0), RED))  # held from the episode it ends
    assert outputs[2][-1]["final_info"]["t"][0] == 2


class OneBatch(SyncVectorEnv):
    """Resets in the same step, and gives the last observations as one batch, as environments in JAX or C++ do."""

    def __init__(self, *arguments: Any, key: str | None, says_which: bool) -> None:
        super().__init__(*arguments, autoreset_mode=AutoresetMode.SAME_STEP)
        self.key, self.says_which = key, says_which

    def step(self, actions: Any) -> Any:
        observation, rewards, terminated, truncated, infos = super().step(actions)
        if "final_obs" in infos:
            batch = copy.deepcopy(observation)  # of running environments something or other
            for index in np.flatnonzero(infos["_final_obs"]):
                if self.key is None:
                    batch[index] = infos["final_obs"][index]
                else:
                    for name, value in infos["final_obs"][index].items():
                        batch[name][index] = value
            infos["final_obs"] = batch
            if not self.says_which:
                del infos["_final_obs"]
        return observation, rewards, terminated, truncated, infos


@pytest.mark.parametrize("says_which", [True, False])
@pytest.mark.parametrize("key", [None, "rgb"])
@pytest.mark.parametrize("mode", CHANNELS)
def test_final_observations_may_be_one_batch(mode: Any, key: str | None, says_which: bool) -> None:
    inside = OneBatch(squares_of((2, 3), key=key), key=key, says_which=says_which)
    env = MaskedObservation(inside, ColourFinder(), [target_of(GREEN), target_of(BLUE)], mode=mode, pixels_key=key)
    env.reset(seed=1)
    env.step(actions(env))
    *_, infos = env.step(actions(env))
    final = infos["final_obs"]
    assert final in env.observation_space
    if key is not None:
        assert final["time"][0] == 2
        final = final[key]
    shows = {"composite": GREEN, "mask": 0, "rgbm": 3}[mode]
    assert np.array_equal(final[0][..., shows] > (0 if mode != "composite" else 199), is_colour(squares(2), GREEN))
    assert not final[1].any()


@pytest.mark.parametrize("as_list", [True, False])
def test_final_observations_without_their_mask_are_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch, as_list: bool
) -> None:
    inside = SyncVectorEnv(squares_of((2, 3)), autoreset_mode=AutoresetMode.SAME_STEP)
    env = MaskedObservation(inside, ColourFinder(), target_of(RED), mode="mask")
    plain = inside.step

    def step(actions: Any) -> Any:
        *others, infos = plain(actions)
        if "final_obs" in infos:
            infos = {"final_obs": list(infos["final_obs"]) if as_list else infos["final_obs"]}
        return (*others, infos)

    monkeypatch.setattr(inside, "step", step)
    env.reset(seed=1)
    env.step(actions(env))
    first, second = env.step(actions(env))[-1]["final_obs"]
    assert first.shape == (SIZE, SIZE, 1)
    assert second is None


@pytest.mark.parametrize("wrong", [np.zeros((2, 5, 5, 3), np.uint8), np.zeros((2, SIZE, SIZE, 3)), None, "none"])
def test_final_observations_of_another_kind_get_a_sentence(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    inside = SyncVectorEnv(squares_of((2, 3)), autoreset_mode=AutoresetMode.SAME_STEP)
    env = MaskedObservation(inside, ColourFinder(), target_of(RED))
    plain = inside.step
    monkeypatch.setattr(inside, "step", lambda actions: (*plain(actions)[:-1], {"final_obs": wrong}))
    env.reset(seed=1)
    with pytest.raises(SamgError, match=r'infos\["final_obs"\] must be uint8 RGB of shape \(2, 24, 24, 3\), not '):
        env.step(actions(env))


def test_nested_images_are_reached_by_a_path() -> None:
    class Nested(SquaresGym):
        def __init__(self) -> None:
            super().__init__()
            inner = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3), self.observation_space])
            self.observation_space = gymnasium.spaces.Dict({"b": inner, "a": gymnasium.spaces.Discrete(2)})

        def _observation(self) -> Any:
            return {"a": 0, "b": (1, super()._observation())}

    inside = SyncVectorEnv([Nested] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env = MaskedObservation(inside, ColourFinder(), target_of(RED), pixels_key=("b", 1), mode="mask")
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["b"][1].shape == (2, SIZE, SIZE, 1)
    for _ in range(4):
        *_, infos = env.step(np.zeros((2, 1), np.float32))
    assert infos["final_obs"][0] in env.single_observation_space


def test_a_final_observation_has_its_own_environment_s_target() -> None:
    inside = SyncVectorEnv(squares_of((2, 2)), autoreset_mode=AutoresetMode.SAME_STEP)
    env = MaskedObservation(inside, ColourFinder(), [target_of(GREEN), target_of(BLUE)], mode="mask")
    env.reset(seed=1)
    env.step(actions(env))
    *_, infos = env.step(actions(env))
    for image, colour in zip(infos["final_obs"], (GREEN, BLUE), strict=True):
        assert np.array_equal(image[..., 0] > 0, is_colour(squares(2), colour))
    assert [each.mask.sum() for each in env.segmentations] == [16, 16]


def test_without_autoreset_only_reset_environments_forget_their_mask() -> None:
    env, outputs = held_and_lost(AutoresetMode.DISABLED, 2)
    assert outputs[-1][3].tolist() == [True, False]
    observation, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert observation["time"][:, 0].tolist() == [0, 2]
    assert shown(observation) == [False, True]
    assert shown(env.step(actions(env))[0]) == [False, True]
    assert shown(env.reset()[0]) == [False, False]


def test_a_mask_of_the_new_episode_is_held_after_a_same_step_reset() -> None:
    sure = [*[0.9] * 7, 0.1, 0.1]  # two each for the reset and two steps, one for the final observation
    inside = SyncVectorEnv(squares_of((2, 9)), autoreset_mode=AutoresetMode.SAME_STEP)
    env = MaskedObservation(inside, ColourFinder(sure), target_of(RED), mode="mask", threshold=0.5, lost="hold")
    env.reset(seed=1)
    begun = [env.step(actions(env))[0] for _ in range(2)][-1]
    assert np.array_equal(env.step(actions(env))[0], begun)


def test_a_mask_of_the_new_episode_is_held_after_a_reset() -> None:
    inside = SyncVectorEnv(squares_of((1, 1)), autoreset_mode=AutoresetMode.DISABLED)
    finder = ColourFinder([*[0.9] * 6, 0.1, 0.1])
    env = MaskedObservation(inside, finder, target_of(RED), mode="mask", threshold=0.5, lost="hold")
    env.reset(seed=1)
    env.step(actions(env))
    begun, _ = env.reset()
    assert np.array_equal(env.step(actions(env))[0], begun)


def test_the_environments_own_infos_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = SyncVectorEnv(squares_of((1, 5)), autoreset_mode=AutoresetMode.SAME_STEP)
    env = MaskedObservation(inside, ColourFinder(), target_of(RED), mode="mask")
    env.reset(seed=1)
    stepped = inside.step(actions(env))
    monkeypatch.setattr(inside, "step", lambda _: stepped)
    *_, infos = env.step(actions(env))
    assert infos["final_obs"][0].shape == (SIZE, SIZE, 1)
    assert stepped[-1]["final_obs"][0].shape == (SIZE, SIZE, 3)


def test_everything_else_is_forwarded_to_the_environments() -> None:
    inside = SyncVectorEnv(squares_of(render_mode="rgb_array"))
    env = MaskedObservation(inside, ColourFinder(), target_of(RED), mode="rgbm")
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.single_action_space is inside.single_action_space
    assert env.call("greet") == ("hello",) * 3
    env.set_attr("gravity", [1.0, 2.0, 3.0])
    assert env.get_attr("gravity") == (1.0, 2.0, 3.0)
    env.reset()
    assert np.array_equal(env.render()[0], inside.envs[0].picture)
    assert inside.single_observation_space.shape == (SIZE, SIZE, 3)
    env.close()
    assert [each.closed for each in inside.envs] == [1, 1, 1]


def test_attributes_are_found_through_other_wrappers() -> None:
    env = MaskedObservation(RecordEpisodeStatistics(SyncVectorEnv(squares_of())), ColourFinder(), target_of(RED))
    assert env.call("greet") == ("hello",) * 3
    assert env.get_attr("gravity") == (9.81,) * 3
    assert len(env.return_queue) == 0
    with pytest.raises(AttributeError, match="curtsy"):
        env.curtsy()


def test_asynchronous_steps_are_masked_too() -> None:
    env = MaskedObservation(AsyncVectorEnv(squares_of()), ColourFinder(), target_of(RED), mode="mask")
    try:
        env.reset_async(seed=1)
        images = [env.reset_wait()[0]]
        env.step_async(actions(env))
        images.append(env.step_wait(timeout=60)[0])
    finally:
        env.close()
    for t, each in enumerate(images):
        assert each in env.observation_space
        assert np.array_equal(each[0, ..., 0] > 0, is_colour(squares(t), RED))


def test_no_mask_is_held_beyond_an_asynchronous_reset() -> None:
    finder = ColourFinder([0.9, 0.9, 0.1, 0.1])
    inside = AsyncVectorEnv(squares_of((9, 9)), autoreset_mode=AutoresetMode.DISABLED)
    env = MaskedObservation(inside, finder, target_of(RED), mode="mask", threshold=0.5, lost="hold")
    try:
        env.reset()
        env.reset_async(options={"reset_mask": np.array([True, False])})
        begun, held = env.reset_wait()[0]
    finally:
        env.close()
    assert not begun.any()
    assert held.any()


@pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning")  # gymnasium says what went wrong in its workers
@pytest.mark.parametrize("where", ["environment", "segmenter"])
@pytest.mark.parametrize("vectorised", [SyncVectorEnv, AsyncVectorEnv])
def test_after_an_error_the_environments_can_be_closed(vectorised: Any, where: str) -> None:
    env = MaskedObservation(vectorised(squares_of()), ColourFinder(iter([0.9] * 3)), target_of(RED))
    env.reset()
    if where == "environment":
        env.set_attr("_t", ["broken"] * 3)
    with pytest.raises((TypeError, StopIteration)):
        env.step(actions(env))
    env.close()
    assert env.closed


@pytest.mark.parametrize(
    ("inside", "arguments", "error", "sentence"),
    [
        (SquaresGym(), {}, InputTypeError, "env must be a gymnasium.vector.VectorEnv, not SquaresGym"),
        (
            None,
            {"target": [target_of(RED)] * 2},
            InputError,
            "one Target or 3 of them, one for each environment, not 2",
        ),
        (
            None,
            {"target": [target_of(RED)] * 2 + [target_of(RED, "0" * 64)]},
            BundleError,
            r"target\[2\] was made with",
        ),
        (None, {"pixels_key": "rgb"}, InputError, "pixels_key must be None where the observation is one array"),
        (None, {"mode": "all"}, InputError, "mode must be composite, mask, rgbm or ids, not 'all'"),
    ],
)
def test_bad_arguments_get_a_sentence(
    inside: Any, arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        MaskedObservation(
            inside or SyncVectorEnv(squares_of()), ColourFinder(), **{"target": target_of(RED), **arguments}
        )


def test_a_failing_constructor_leaves_the_environments_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: Any) -> None:
        if not getattr(self, "closed", True):
            self.close()

    monkeypatch.setattr(VectorEnv, "__del__", close, raising=False)  # as gymnasium 1.1 has it
    inside = SyncVectorEnv(squares_of())
    for arguments in ({"mode": "all"}, {"pixels_key": "rgb"}, {"reference": (1, 2)}):
        with pytest.raises(InputError):
            MaskedObservation(inside, ColourFinder(), target_of(RED), **arguments)
    gc.collect()
    assert not inside.closed
    MaskedObservation(inside, ColourFinder(), target_of(RED)).reset()
    gc.collect()
    assert inside.closed  # which shows that the check above works


@pytest.fixture(scope="module")
def tiny() -> Iterator[samg_fast.Segmenter]:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with samg_fast.load("tiny", backend="openvino", threads=1) as segmenter:
        yield segmenter


def test_one_batch_gives_the_same_as_one_by_one(tiny: samg_fast.Segmenter) -> None:
    targets = [tiny.identify(squares(0), is_colour(squares(0), colour)) for colour in COLOURS]
    together = MaskedObservation(SyncVectorEnv(squares_of()), tiny, targets)
    masked = [partial(MaskedSingle, make(), tiny, target) for make, target in zip(squares_of(), targets, strict=True)]
    one_by_one = SyncVectorEnv(masked)
    expected, got = one_by_one.reset(seed=4)[0], together.reset(seed=4)[0]
    assert one_by_one.observation_space == together.observation_space
    for _ in range(8):
        assert (expected != got).mean() < 0.01  # float32 rounding in the networks, at the edges of masks
        expected, got = one_by_one.step(actions(one_by_one))[0], together.step(actions(together))[0]
