"""The public names of `samg_fast.ops`, several of which are submodules too."""

from __future__ import annotations

import subprocess
import sys

from samg_fast import ops

LIMITS = {"MAX_FEATURES", "MAX_POINTS", "MAX_VALUES"}
FUNCTIONS = {
    "apply_mask",
    "mask_cells",
    "mask_feature",
    "masked_picture_cells",
    "point_feature",
    "preprocess",
    "prompt_assembly",
    "resize_logits",
    "similarity_map",
    "topk_points",
}

FIRST_IMPORTS = """
import importlib, pkgutil, sys
import samg_fast.ops

modules = [f"samg_fast.ops.{each.name}" for each in pkgutil.iter_modules(samg_fast.ops.__path__)]
assert "samg_fast.ops.preprocess" in modules
for first in [*modules, "samg_fast.ops"]:
    for name in [name for name in sys.modules if name.startswith("samg_fast.ops")]:
        del sys.modules[name]
    for name in [first, *modules]:
        importlib.import_module(name)
    from samg_fast import ops
    assert ops is sys.modules["samg_fast.ops"]
    for name in ops.__all__:
        assert name.startswith("MAX_") or callable(getattr(ops, name)), (first, name)
"""


def test_public_names() -> None:
    assert set(ops.__all__) == LIMITS | FUNCTIONS | {"ResizedLogits"}
    assert all(callable(getattr(ops, name)) for name in FUNCTIONS)
    assert (ops.MAX_FEATURES, ops.MAX_POINTS, ops.MAX_VALUES) == (64, 64, 2048 * 2048)
    assert ops.ResizedLogits._fields == ("settled", "logits", "mask", "area", "box", "chosen")


def test_a_name_is_the_function_whichever_module_is_imported_first() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_IMPORTS], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
