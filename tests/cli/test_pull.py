"""``samg-fast pull``: its output, files and errors, with a local server of checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from samg_fast.bundle import checkpoints
from samg_fast.bundle.checkpoints import Checkpoint
from samg_fast.cli import app
from support.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 8000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cli() -> CliRunner:
    return CliRunner()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve two checkpoints, "one" and "two", as the only official ones."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with serving(CONTENT) as running:
        official = tuple(
            Checkpoint(
                name, f"{running.address}/{name}.pt", SHA256, 2_000_000, 7, f"of/{name}", "Apache-2.0", f"lic/{name}"
            )
            for name in ("one", "two")
        )
        monkeypatch.setattr(checkpoints, "CHECKPOINTS", official)
        yield running


def test_prints_size_source_and_licence_first_and_the_path_last(cli: CliRunner, server: FileServer) -> None:
    result = cli.invoke(app, ["pull", "one", "two", "one"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        line
        for name in ("one", "two")
        for line in (
            f"{name}: 2 MB from {server.address}/{name}.pt",
            f"  licence Apache-2.0: lic/{name}",
            f"{name}: {checkpoints.folder() / name}.pt",
        )
    ]
    assert result.stderr == ""  # no progress bar without a terminal
    assert len(server.requests) == 2


def test_existing_checkpoint_is_not_fetched_again(cli: CliRunner, server: FileServer) -> None:
    assert cli.invoke(app, ["pull", "one"]).exit_code == 0
    again = cli.invoke(app, ["pull", "one"])
    assert (again.exit_code, again.stdout) == (0, f"one: {checkpoints.folder() / 'one.pt'}\n")
    assert len(server.requests) == 1


def test_json(cli: CliRunner, server: FileServer) -> None:
    cli.invoke(app, ["pull", "one"])
    result = cli.invoke(app, ["pull", "one", "two", "--json", "-"])
    assert result.exit_code == 0
    one, two = json.loads(result.stdout)["checkpoints"]
    assert (one["fetched"], two["fetched"]) == (False, True)
    assert two == {
        "name": "two",
        "path": str(checkpoints.folder() / "two.pt"),
        "fetched": True,
        "sha256": SHA256,
        "bytes": len(CONTENT),
        "parameters": 7,
        "url": f"{server.address}/two.pt",
        "page": "of/two",
        "license": "Apache-2.0",
        "license_url": "lic/two",
    }
    assert "licence Apache-2.0" in result.stderr


def test_an_unknown_name_is_refused_before_any_download(cli: CliRunner, server: FileServer) -> None:
    result = cli.invoke(app, ["pull", "one", "three"])
    assert result.exit_code == 1
    assert result.stderr == "samg-fast: there is no checkpoint 'three'; there are one, two\n"
    assert server.requests == []


def test_a_given_hash(cli: CliRunner, server: FileServer) -> None:
    server.content = b"published anew"
    new = hashlib.sha256(server.content).hexdigest()
    refused = cli.invoke(app, ["pull", "one"])
    assert refused.exit_code == 1
    assert f"its SHA-256 is {new}, expected {SHA256}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    taken = cli.invoke(app, ["pull", "one", "--sha256", new, "--json", "-"])
    assert taken.exit_code == 0
    assert json.loads(taken.stdout)["checkpoints"][0]["sha256"] == new
    assert cli.invoke(app, ["pull", "one"]).exit_code == 0


def test_a_given_hash_is_for_one_checkpoint(cli: CliRunner, server: FileServer) -> None:
    result = cli.invoke(app, ["pull", "one", "two", "--sha256", SHA256])
    assert result.exit_code == 1
    assert result.stderr.startswith("samg-fast: --sha256 is the hash of one checkpoint, but there are 2")
    assert server.requests == []


def test_a_file_by_hand_is_checked(cli: CliRunner, server: FileServer) -> None:
    path = checkpoints.folder() / "one.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[1:])
    refused = cli.invoke(app, ["pull", "one"])
    assert refused.exit_code == 1
    assert str(path) in refused.stderr
    assert refused.stdout == ""
    path.write_bytes(CONTENT)
    assert cli.invoke(app, ["pull", "one"]).exit_code == 0
    assert server.requests == []


def test_without_names_it_shows_its_usage(cli: CliRunner) -> None:
    assert cli.invoke(app, ["pull"]).exit_code == 2
