"""The earlier tiny bundle comes out of a repository's history, whatever the newest commit holds."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from benchmarks.common import Configuration
from benchmarks.earlier import EARLIER_TINY, earlier_tiny
from samg_fast.errors import InputError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with three bundles in its history, of encoders "one", "two" and "three"."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "repository"
    folder = root / "samg_fast" / "bundle" / "tiny"
    folder.mkdir(parents=True)

    def git(*arguments: str) -> None:
        name = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        subprocess.run(["git", *name, *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    for name in ("one", "two", "three"):
        for file in ("encoder.onnx", "decoder.onnx", "manifest.json"):
            (folder / file).write_text(name)
        git("add", "-A")
        git("commit", "-m", name)
    return root


def test_it_is_found_by_its_encoder(repository: Path) -> None:
    encoder = hashlib.sha256(b"two").hexdigest()
    folder = earlier_tiny(repository / "samg_fast", encoder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "encoder.onnx": "two",
        "decoder.onnx": "two",
        "manifest.json": "two",
    }
    (repository / ".git").rename(repository / "gone")
    assert earlier_tiny(repository, encoder) == folder  # once it is there, no history is needed


def test_a_history_without_it_is_said(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tiny-0\.1\.0 is not in this clone's history: fetch all of it"):
        earlier_tiny(repository, "0" * 64)
    with pytest.raises(InputError, match="comes out of git's history, which cannot be read"):
        earlier_tiny(tmp_path, "0" * 64)


def test_benchmarks_open_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("benchmarks.common.earlier_tiny", lambda: Path("somewhere"))
    monkeypatch.setattr("samg_fast.load", lambda bundle, **_: seen.append(bundle))
    Configuration(EARLIER_TINY).open()
    Configuration("tiny").open()
    assert seen == ["somewhere", "tiny"]
