"""Tasks, generalisation settings and ground truth, to train agents on and to measure a segmenter on.

`make` builds an environment with image observations; `stack` stacks the latest images, and belongs outside the wrapper
that masks them. Importing this package starts neither a renderer nor a simulation. Import the other modules by name:
`samg_fast.envs.dmc` (a task that runs without an agent), `samg_fast.envs.backgrounds`, `samg_fast.envs.rendering`,
`samg_fast.envs.clip_pack` (renders the frames that ship with the package).
"""

from samg_fast.envs.factory import make, stack
from samg_fast.envs.settings import SETTINGS
from samg_fast.envs.tasks import ADROIT, EIGHT, TASKS, UNSEEN, Task, find_task

__all__ = ["ADROIT", "EIGHT", "SETTINGS", "TASKS", "UNSEEN", "Task", "find_task", "make", "stack"]
