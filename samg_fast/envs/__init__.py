"""Tasks, generalisation settings and ground truth to run and to measure a segmenter on.

What needs no renderer is here; the rest is imported by the name of its module: `samg_fast.envs.clip_pack` (rendered
frames that ship with the package), `samg_fast.envs.dmc` (a running task), `samg_fast.envs.backgrounds`,
`samg_fast.envs.rendering`.
"""

from samg_fast.envs.settings import SETTINGS
from samg_fast.envs.tasks import EIGHT, TASKS, UNSEEN, Task, find_task

__all__ = ["EIGHT", "SETTINGS", "TASKS", "UNSEEN", "Task", "find_task"]
