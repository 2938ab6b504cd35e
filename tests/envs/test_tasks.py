"""Task names: what they stand for, and what a wrong one suggests."""

from __future__ import annotations

import pytest

from samg_fast.envs import ADROIT, EIGHT, TASKS, UNSEEN, Task, find_task
from samg_fast.envs.tasks import nearest
from samg_fast.errors import InputError
from support.rendering import needs_rendering


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("walker_walk", Task("walker", "walk", 0)),
        ("quadruped_walk", Task("quadruped", "walk", 2)),
        ("ball_in_cup_catch", Task("ball_in_cup", "catch", 0)),
        ("point_mass_easy", Task("point_mass", "easy", 0)),
        ("humanoid_CMU_run", Task("humanoid_CMU", "run", 0)),
        ("humanoid_run_pure_state", Task("humanoid", "run_pure_state", 0)),
        ("swimmer_swimmer6", Task("swimmer", "swimmer6", 0)),
    ],
)
def test_names_are_domain_and_task(name: str, task: Task) -> None:
    assert find_task(name) == task
    assert task.name == name


def test_the_paper_s_and_the_unseen_tasks_exist_and_share_no_domain() -> None:
    assert len(EIGHT) == 8
    assert len(UNSEEN) == 4
    assert not {TASKS[name].domain for name in EIGHT} & {TASKS[name].domain for name in UNSEEN}


def test_the_hands_have_names_of_the_same_form() -> None:
    assert ADROIT == ("adroit_door", "adroit_hammer", "adroit_pen")
    assert [find_task(name).name for name in ADROIT] == list(ADROIT)


@needs_rendering
def test_every_suite_task_is_known() -> None:
    from dm_control import suite

    known = {(task.domain, task.task) for name, task in TASKS.items() if name not in ADROIT}
    assert known == set(suite.ALL_TASKS)


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [
        ("walker_wlak", "walker_walk"),
        ("Walker_Walk", "walker_walk"),
        ("cup_catch", "ball_in_cup_catch"),
        ("adroit_hamer", "adroit_hammer"),
    ],
)
def test_a_wrong_name_gets_the_nearest(wrong: str, suggestion: str) -> None:
    with pytest.raises(InputError, match=f"there is no task '{wrong}': did you mean .*{suggestion}"):
        find_task(wrong)


def test_a_name_similar_to_none_lists_all() -> None:
    assert nearest("zzz", ["one", "two"]) == "there are one, two"
    with pytest.raises(InputError, match="there is no task None"):
        find_task(None)  # type: ignore[arg-type]
