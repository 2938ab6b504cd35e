"""``samg-fast annotate``: its address, and what it refuses."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from samg_fast.annotate import PageServer
from samg_fast.cli import app
from samg_fast.media import write_image
from support.synthetic_bundle import write_bundle


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = tmp_path_factory.mktemp("desk")
    (desk / "bundle").mkdir()
    write_bundle(desk / "bundle", shared=True)
    write_image(desk / "image.png", np.zeros((48, 64, 3), np.uint8))
    return desk


def test_it_prints_the_address_where_no_browser_opens(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    monkeypatch.setattr(PageServer, "run", lambda server: server._socket.close())
    words = ["annotate", desk / "image.png", "-o", tmp_path / "s", "--bundle", desk / "bundle", "--threads", 1]
    result = CliRunner().invoke(app, [str(each) for each in words])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("http://127.0.0.1:")
    assert "Annotate 1 frames there" in result.stdout
    assert "no browser can be opened: open the address above" in result.stderr


def test_what_is_refused(desk: Path, tmp_path: Path) -> None:
    options = ["-o", str(tmp_path / "s"), "--bundle", str(desk / "bundle"), "--threads", "1", "--no-browser"]
    result = CliRunner().invoke(app, ["annotate", *options])
    assert result.exit_code == 2
    assert "or --env must be given, and not both" in " ".join(result.stderr.split())
    result = CliRunner().invoke(app, ["annotate", str(desk / "none.png"), *options])
    assert "none.png: no such file" in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["annotate", str(desk / "image.png"), *options, "--port", port])
    assert result.exit_code == 1
    assert f"port {port} cannot be used" in result.stderr
