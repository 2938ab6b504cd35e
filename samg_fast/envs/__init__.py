"""Tasks, generalisation settings and ground truth to train on, to run and to measure a segmenter on.

`make` gives an environment of pictures for an agent, `stack` stacks its pictures, after they were masked if they are.
Nothing is rendered or simulated before they are called; the rest is imported by the name of its module:
`samg_fast.envs.clip_pack` (rendered frames that ship with the package), `samg_fast.envs.dmc` (a task that runs without
an agent), `samg_fast.envs.backgrounds`, `samg_fast.envs.rendering`.
"""

from samg_fast.envs.factory import make, stack
from samg_fast.envs.settings import SETTINGS
from samg_fast.envs.tasks import ADROIT, EIGHT, TASKS, UNSEEN, Task, find_task

__all__ = ["ADROIT", "EIGHT", "SETTINGS", "TASKS", "UNSEEN", "Task", "find_task", "make", "stack"]
