"""Masked observations for environments: one line changes what an agent sees.

`samg_fast.wrappers.dm_env` wraps dm_control's environments, `samg_fast.wrappers.gymnasium` gymnasium's, and
`samg_fast.wrappers.vector` gymnasium's vector environments, whose frames are segmented as one batch. Each module is
imported on first access, because each needs different packages.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samg_fast.wrappers import dm_env, gymnasium, vector

__all__ = ["dm_env", "gymnasium", "vector"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
