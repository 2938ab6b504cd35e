"""The script for a machine with a GPU: a part survives another's failure, and every test marked gpu is in one part."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

SCRIPT = ROOT / "scripts" / "on_gpu.sh"


def on_gpu(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, "--python", sys.executable, *options], capture_output=True, text=True, timeout=120, check=False
    )


def test_others_go_on(tmp_path: Path) -> None:
    """One part fails, one hangs, one cannot run here; each is recorded as what it is; what was meant is no fault."""
    out = tmp_path / "out"
    folders = ("--out", str(out), "--work", str(tmp_path / "work"), "--commit", "abc")
    done = on_gpu("--rehearse", "--only", "fails,hangs,sanitizer", *folders)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rehearsal"] is True
    assert summary["commit"] == "abc"
    assert summary["versions"]["python"]
    fails, hangs, sanitizer = summary["parts"]
    assert (fails["part"], fails["outcome"], fails["exit"]) == ("fails", "failed", 3)
    assert (hangs["outcome"], hangs["command"], hangs["seconds"] < 10) == ("timed out", "'sleep' '60'", True)
    assert sanitizer["outcome"] == "left out: compute-sanitizer needs a GPU"
    assert {path.name for path in out.iterdir()} == {"summary.json", "all.tar.gz", "fails.log", "hangs.log"}


def test_what_should_not_have_failed(tmp_path: Path) -> None:
    """Without an environment the kernels' tests cannot run."""
    done = on_gpu("--only", "kernels", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
    assert done.returncode == 1
    assert "kernels" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--wheels", "no/such/folder"], "there is no folder no/such/folder"),
        (["--limit", "soon"], "limit must be a whole number of seconds above 0, it is 'soon'"),
        (["--only"], "--only needs a value"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_wrong_options(options: list[str], said: str) -> None:
    done = on_gpu(*options)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_every_gpu_test_is_in_one_part() -> None:
    """None runs twice, and none is forgotten."""
    commands = [shlex.split(line.split("\t")[2]) for line in on_gpu("--list").stdout.splitlines()]
    selections = [command[command.index("gpu") + 1 :] for command in commands if command[1:3] == ["-m", "pytest"]]
    collect = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "-m", "gpu", "tests"]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    tests = {line for line in done.stdout.splitlines() if "::" in line and not line.startswith("SKIPPED")}
    assert len(tests) > 100, done.stdout[-2000:] + done.stderr[-2000:]
    found = {test: [selection for selection in selections if selects(selection, test)] for test in tests}
    assert {test: len(parts) for test, parts in found.items() if len(parts) != 1} == {}
    assert all(selection in [parts[0] for parts in found.values()] for selection in selections), "a part without a test"


def selects(selection: list[str], test: str) -> bool:
    """Say whether pytest's arguments take a test in: folders and files, some that are ignored, and an expression."""
    paths, expression = selection, ""
    if "-k" in selection:
        paths, expression = selection[: selection.index("-k")], selection[-1]
    ignored = [path.removeprefix("--ignore=") for path in paths if path.startswith("--ignore=")]
    if not test.startswith(tuple(paths)) or test.startswith(tuple(ignored)):
        return False
    return bool(eval(re.sub(r"test_\w+", lambda name: str(name[0] in test), expression) or "True"))
