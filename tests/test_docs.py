"""The Python in README and docs runs as it stands, and what they name is there: files, modules, headings, pages."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from support.rendering import needs_rendering

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS, ROOT / "CONTRIBUTING.md"]


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def marks(source: str) -> list[pytest.MarkDecorator]:
    return [needs_rendering] if re.search(r"\bmake\(", source) else []


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


EXAMPLES = [
    pytest.param(path, source, id=f"{named(path)}-{index}", marks=marks(source))
    for path in (README, *DOCS)
    for index, source in enumerate(blocks(path))
]
EVERY_PAGE = [pytest.param(path, id=named(path)) for path in PAGES]


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


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, heading = link.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), link
        if heading:
            assert heading in anchors(there), link


def anchors(page: Path) -> list[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]


def test_every_page_is_linked_from_the_list_of_pages() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS if page.name != "README.md" and f"({page.name}" not in listed] == []


FILE = re.compile(
    r"\b(?:samg_fast|engine|export|distill|benchmarks|examples|tests|scripts)/[\w/.]*\w\.(?:py|sh|h|cpp|cu)\b"
)


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_files_that_are_named_exist(page: Path) -> None:
    files = {each for each in FILE.findall(page.read_text(encoding="utf-8")) if "NAME" not in each}
    assert [each for each in sorted(files) if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [
        each for each in sorted(set(re.findall(r"\b(?:samg_fast|benchmarks)(?:\.\w+)+", text))) if not exists(each)
    ] == []


def exists(name: str) -> bool:
    parts = name.split(".")
    end = next(end for end in range(len(parts), 0, -1) if is_module(".".join(parts[:end])))
    try:
        return end == len(parts) or hasattr(importlib.import_module(".".join(parts[:end])), parts[end])
    except ModuleNotFoundError:  # a library is not installed here
        return True


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what comes before the last dot is no package
        return False
