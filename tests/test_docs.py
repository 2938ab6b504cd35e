"""The Python in README and docs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from support.rendering import needs_rendering

README = ROOT / "README.md"


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def marks(source: str) -> list[pytest.MarkDecorator]:
    return [needs_rendering] if re.search(r"\bmake\(", source) else []


EXAMPLES = [
    pytest.param(path, source, id=f"{path.name}-{index}", marks=marks(source))
    for path in (README, *sorted((ROOT / "docs").glob("*.md")))
    for index, source in enumerate(blocks(path))
]


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/control.md", "docs/vectorised.md"])
def test_a_page_for_a_use_has_examples_that_are_run(page: str) -> None:
    assert [each for each in EXAMPLES if each.values[0] == ROOT / page]


@pytest.mark.parametrize(("path", "source"), EXAMPLES)
def test_an_example_runs(path: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), scope)
    if path == README:
        shown = scope["out"].mask if "out" in scope else scope["observation"]
        assert shown.any()
