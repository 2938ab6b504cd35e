"""`samg_fast.wrappers` imports its modules on first access, and they say which extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(program: str) -> str:
    """Run a program in a fresh interpreter, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "package"), [("dm_env", "dm_env"), ("gymnasium", "gymnasium"), ("vector", "gymnasium")]
)
def test_a_module_is_imported_on_first_access(module: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    program = "import sys, samg_fast.wrappers as w; print({'dm_env', 'gymnasium'} & set(sys.modules)); "
    program += f"print(w.{module}.__name__, w.{module} is w.{module}, '{module}' in dir(w))"
    assert python(program) == f"set()\nsamg_fast.wrappers.{module} True True\n"


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("dm_env", "dm_env", "dmc"), ("gymnasium", "gymnasium", "gymnasium"), ("vector", "gymnasium", "gymnasium")],
)
def test_a_module_says_which_extra_is_missing(module: str, package: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None  # as if it were not installed
import samg_fast.wrappers
try:
    samg_fast.wrappers.{module}
except samg_fast.MissingExtraError as error:
    print(error)
"""
    sentence = f"samg_fast.wrappers.{module} needs packages that are not installed; "
    assert python(program) == f"{sentence}run: pip install 'samg-fast[{extra}]'\n"


def test_another_name_is_an_attribute_error() -> None:
    import samg_fast.wrappers

    with pytest.raises(AttributeError, match=r"module 'samg_fast\.wrappers' has no attribute 'jax'"):
        _ = samg_fast.wrappers.jax
