"""``samg-fast build`` and ``samg-fast cache``: with the real TensorRT-RTX, ahead of time, so that no GPU is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from typer.testing import CliRunner, Result

from samg_fast.bundle.zoo import resolve
from samg_fast.cli import app
from samg_fast.cli.build import _Phases
from samg_fast.cli.cache import _age
from samg_fast.devices import driver
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.key import EngineKey
from support.synthetic_bundle import write_fitted_bundle

pytest.importorskip("filelock", reason="filelock is not installed")

AHEAD = ["build", "tiny", "--backend", "tensorrt-rtx", "--compute-capability"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test its own cache, on a machine without a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(driver, "find", lambda: driver.Gpus(reason="there is no NVIDIA driver"))
    return tmp_path / "samg-fast" / "engines"


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def words(text: str) -> str:
    """Remove line breaks and the frame from a usage error."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def put(built: str | None = None, **changes: Any) -> EngineCache:
    """Store an engine of some network."""
    values: dict[str, Any] = {
        "onnx": "a" * 64,
        "backend": "tensorrt",
        "version": "10.13",
        "recipe": 1,
        "platform": "linux x86_64",
        "gpu": "NVIDIA L4",
        "capabilities": ("8.9",),
        "precision": "fp16",
        "batches": (1, 8),
    }
    cache, key = EngineCache(), EngineKey(**{**values, **changes})
    with cache.lock(key):
        cache.put(key, bytes(3 << 20), bundle="l0-vits14", role="encoder", parity="", built=built)
    return cache


@pytest.mark.usefixtures("rtx")
class TestBuild:
    def test_twice_for_two_kinds_of_gpu(self, folder: Path) -> None:
        first = invoke(*AHEAD, "12.0", "--compute-capability", "8.9", "--json", "-")
        assert first.exit_code == 0, first.output
        figures = json.loads(first.stdout)
        assert (figures["bundle"], figures["backend"]) == ("tiny", "tensorrt-rtx")
        engines = figures["engines"]
        assert [each["role"] for each in engines] == ["encoder", "decoder"]
        for each in engines:
            assert (each["precision"], each["target"], each["cached"]) == ("fp32", "8.9, 12.0", False)
            assert each["parity"] == "not checked: no GPU here can run it"
            assert Path(each["path"]).parent == folder
            assert 100_000 < each["bytes"] < Path(each["path"]).stat().st_size
        assert "building the engine of tiny's encoder at fp32 for 8.9, 12.0 by tensorrt-rtx" in first.stderr

        second = invoke(*AHEAD, "8.9,12.0", "--precision", "fp32,fp32", "--batch", "8, 1")
        assert second.exit_code == 0, second.output
        assert second.stdout.count("cached") == 2
        assert f"engine cache: {folder}" in second.stdout
        assert second.stderr == ""

    def test_a_fitted_bundle_is_one_engine(self, tmp_path: Path) -> None:
        folder = write_fitted_bundle(tmp_path / "fitted")
        result = invoke("build", str(folder), *AHEAD[2:], "8.9", "--batch", "1", "--json", "-")
        assert result.exit_code == 0, result.output
        assert [each["role"] for each in json.loads(result.stdout)["engines"]] == ["network"]

    def test_the_json_goes_to_a_file(self, tmp_path: Path) -> None:
        result = invoke(*AHEAD, "8.9", "--batch", "2", "--json", str(tmp_path / "figures.json"))
        assert result.exit_code == 0, result.output
        assert len(json.loads((tmp_path / "figures.json").read_bytes())["engines"]) == 2
        assert {entry.key.batches for entry in EngineCache().entries()} == {(2,)}

    def test_a_capability_the_library_does_not_know(self, folder: Path) -> None:
        result = invoke(*AHEAD, "9.9")
        assert result.exit_code == 1
        assert re.fullmatch(
            r"samg-fast: compute_capability is '9\.9', but TensorRT-RTX \S+ builds ahead of time for .*8\.9, 12\.0.*\n",
            result.stderr,
        )
        assert not folder.exists()

    def test_without_a_gpu(self) -> None:
        result = invoke("build", "tiny", "--backend", "tensorrt-rtx")
        assert result.exit_code == 1
        assert result.stderr.startswith(
            "samg-fast: tensorrt-rtx cannot build for the GPU here: there is no NVIDIA driver"
        )
        assert "name a compute capability to build ahead of time: " in result.stderr
        assert result.stderr.count("\n") == 1

    def test_batch_that_engines_cannot_take(self, folder: Path) -> None:
        result = invoke(*AHEAD, "8.9", "--batch", "1,99999")
        assert result.exit_code == 1
        assert result.stderr == "samg-fast: batches[1] must be from 1 to 4096, not 99999\n"
        assert not folder.exists()

    def test_precision_that_the_bundle_lacks(self) -> None:
        result = invoke(*AHEAD, "8.9", "--precision", "fp16")
        assert result.exit_code == 1
        assert result.stderr == "samg-fast: precision is 'fp16', but bundle tiny has files for fp32 only\n"

    @pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
    def test_ctrl_c_leaves_nothing_half_written(self, folder: Path) -> None:
        running = subprocess.Popen(
            [sys.executable, "-m", "samg_fast", *AHEAD, "8.9"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background makes them ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert running.stderr is not None
        assert running.stderr.readline().startswith("samg-fast: building the engine of tiny's encoder")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
        assert running.returncode == 130
        assert errors.splitlines()[-1] == "samg-fast: interrupted; files that were already written are whole"
        assert not [path for path in folder.iterdir() if ".part" in path.name]
        assert len(EngineCache().entries()) < 2


def test_bundle_of_a_newer_format(tmp_path: Path) -> None:
    shutil.copytree(resolve("tiny"), tmp_path / "new")
    manifest = tmp_path / "new" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    result = invoke("build", str(tmp_path / "new"), "--backend", "tensorrt-rtx", "--compute-capability", "8.9")
    assert result.exit_code == 1
    assert "format is 2, expected 1, the only one this version reads" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--backend", "openvino"],
            "Invalid value for --backend: openvino compiles no engines, expected tensorrt or tensorrt-rtx",
        ),
        (["--backend", "auto"], "auto compiles no engines"),
        ([], "Missing option '--backend'"),
        (["--backend", "tensorrt", "--batch", "1,x"], "--batch: '1,x' is not whole numbers above 0, as in 1,8,32"),
        (["--backend", "tensorrt", "--batch", "0"], "--batch: '0' is not whole numbers above 0"),
        (["--backend", "tensorrt", "--batch", ""], "--batch: '' is not whole numbers above 0"),
        (["--backend", "tensorrt", "--precision", "fp64"], "--precision: 'fp64' is none of fp32, fp16, bf16, int8"),
        (
            ["--backend", "tensorrt-rtx", "--compute-capability", "8.9", "--device", "cuda:1"],
            "--device: is a GPU here, and --compute-capability names kinds of GPUs",
        ),
    ],
)
def test_bad_usage(arguments: list[str], sentence: str) -> None:
    result = invoke("build", "tiny", *arguments)
    assert result.exit_code == 2
    assert sentence in words(result.stderr)


class TestCache:
    def test_an_empty_one(self, folder: Path) -> None:
        assert invoke("cache", "list").stdout == f"0 engines, 0.0 MiB, in {folder}\n"
        assert invoke("cache", "clear").stdout == f"removed 0 files, 0.0 MiB, from {folder}\n"
        assert not folder.exists()

    def test_list(self, folder: Path) -> None:
        cache = put(gpu="NVIDIA RTX PRO 6000 Blackwell Server Edition")
        put(backend="tensorrt-rtx", version="1.7.1", gpu="", capabilities=("8.9", "12.0"))
        listed = " ".join(invoke("cache", "list").stdout.split())
        here = (
            "l0-vits14 encoder tensorrt 10.13, linux x86_64 NVIDIA RTX PRO 6000 Blackwell Server Edition (8.9) fp16 1,8"
        )
        for part in (here, "tensorrt-rtx 1.7.1, linux x86_64 8.9, 12.0 fp16"):
            assert part in listed
        for entry in cache.entries():
            assert f" {entry.path.name[:12]} " in listed, "a file's name that is broken cannot be looked for"
        assert listed.endswith(f"2 engines, 6.0 MiB, in {folder}")

        found = json.loads(invoke("cache", "list", "--json", "-").stdout)
        assert found["folder"] == str(folder)
        here = next(each for each in found["engines"] if each["gpu"])
        assert here == {
            "bundle": "l0-vits14",
            "role": "encoder",
            "backend": "tensorrt",
            "version": "10.13",
            "platform": "linux x86_64",
            "gpu": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "compute_capabilities": ["8.9"],
            "precision": "fp16",
            "batches": [1, 8],
            "parity": None,
            "bytes": 3 << 20,
            "built": next(entry.built for entry in cache.entries() if entry.key.gpu),
            "path": next(str(entry.path) for entry in cache.entries() if entry.key.gpu),
            "stale": False,
        }
        assert "stale" not in listed

    def test_stale_ones(self, folder: Path) -> None:
        """They are marked and kept, and can be removed separately."""
        put("2020-01-01T00:00:00+00:00")
        put("2020-01-02T00:00:00+00:00", version="10.14")
        put("2020-01-01T00:00:00+00:00", version="10.13", gpu="NVIDIA A10")
        listed = invoke("cache", "list").stdout
        assert [line.rstrip().endswith(" d, stale") for line in listed.splitlines()[1:4]].count(True) == 1
        assert listed.endswith("1 stale; samg-fast cache clear --stale removes them\n")
        engines = json.loads(invoke("cache", "list", "--json", "-").stdout)["engines"]
        assert [(each["version"], each["gpu"]) for each in engines if each["stale"]] == [("10.13", "NVIDIA L4")]
        assert invoke("cache", "clear", "--stale").stdout == f"removed 1 file, 3.0 MiB, from {folder}\n"
        left = {(entry.key.version, entry.key.gpu) for entry in EngineCache().entries()}
        assert left == {("10.14", "NVIDIA L4"), ("10.13", "NVIDIA A10")}

    def test_damaged_ones_are_reported(self) -> None:
        (entry,) = put().entries()
        entry.path.write_bytes(b"")
        result = invoke("cache", "list")
        assert result.exit_code == 0
        assert result.stderr == f"samg-fast: the cached file {entry.path} is not used: it is empty\n"
        assert result.stdout.startswith("0 engines")

    def test_clear(self, folder: Path) -> None:
        put()
        (folder / "notes.txt").write_text("mine")
        result = invoke("cache", "clear", "--json", "-")
        figures = json.loads(result.stdout)
        assert (figures["removed"], figures["folder"]) == (1, str(folder))
        assert figures["bytes"] > 3 << 20
        assert "removed 1 file, 3.0 MiB" in result.stderr
        assert (folder / "notes.txt").read_text() == "mine"
        assert EngineCache().entries() == []

    @pytest.mark.parametrize(
        ("seconds", "text"), [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 30, "30 d")]
    )
    def test_ages(self, seconds: float, text: str) -> None:
        assert _age(seconds) == text


@pytest.mark.parametrize("command", [["build"], ["cache"], ["cache", "list"], ["cache", "clear"]])
def test_help_has_an_example(command: list[str]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Example:\s+samg-fast {' '.join(command)}", result.stdout)


def test_nested_phases_are_drawn_below_their_parents() -> None:
    with Progress(disable=True) as bar:
        draw = _Phases(bar, "encoder fp16")

        def drawn() -> list[tuple[str, float, float | None]]:
            return [(task.description, task.completed, task.total) for task in bar.tasks]

        draw("Building", 0, 2, None)
        draw("Timing", 0, 5, "Building")
        draw("Timing", 3, 5, "Building")
        assert drawn() == [("encoder fp16: Building", 0, 2), ("  Timing", 3, 5)]
        draw("Timing", 5, 5, "Building")
        draw("Timing", 5, 5, "Building")  # its last step, then its end
        draw("Building", 1, 2, None)
        assert drawn() == [("encoder fp16: Building", 1, 2)]
        draw("Building", 2, 2, None)
        assert drawn() == []
