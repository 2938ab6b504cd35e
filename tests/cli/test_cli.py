"""The program: help, usage, doctor, models, and error messages."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import samg_fast
from samg_fast import backends
from samg_fast.backends import BackendStatus
from samg_fast.backends.registry import REGISTRY
from samg_fast.bundle import PRECISIONS, zoo
from samg_fast.cli import app
from samg_fast.cli.common import Precision, extra
from samg_fast.devices import driver
from samg_fast.devices.driver import Gpu, Gpus
from samg_fast.errors import MissingExtraError
from samg_fast.media import write_image
from support.paths import ROOT
from support.synthetic_bundle import write_bundle

COMMANDS = ("doctor", "models", "identify", "segment", "demo", "control")


@pytest.fixture
def cli() -> CliRunner:
    return CliRunner()


@pytest.fixture
def one_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a synthetic bundle the only shipped one."""
    folder = tmp_path / "bundles" / "toy"
    folder.mkdir(parents=True)
    monkeypatch.setattr(zoo, "BUNDLES", folder.parent)
    return write_bundle(folder, shared=True)


class TestProgram:
    def test_runs_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "samg_fast", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"samg-fast {samg_fast.__version__}\n"
        assert done.stderr == ""

    def test_heavy_modules_are_imported_on_demand(self) -> None:
        program = (
            "import sys, samg_fast.cli; heavy = {'openvino', 'onnxruntime', 'torch', 'mujoco', 'dm_control', 'av'};"
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_without_a_command_it_prints_help(self, cli: CliRunner) -> None:
        result = cli.invoke(app, [])
        assert all(command in result.output for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help_with_an_example(self, cli: CliRunner, command: str) -> None:
        result = cli.invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert f"Example:\n    samg-fast {command}" in result.stdout
        assert "--json" in result.stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            ["nonsense"],
            ["doctor", "--nonsense"],
            ["identify", "a.png"],
            ["identify", "a.png", "b.png", "-o", "c", "--point", "3"],
            ["identify", "a.png", "b.png", "-o", "c", "--point", "3,x"],
            ["segment", "a.png", "-t", "b", "-o", "c", "--backend", "abacus"],
            ["segment", "a.png", "-t", "b", "-o", "c", "--precision", "fp3"],
            ["segment", "a.png", "-t", "b", "-o", "c", "--threads", "0"],
            ["segment", "a.png", "-t", "b", "-o", "c", "--device", "gpu"],
            ["identify", "a.png", "b.png", "-o", "c", "--device", "cpu:1"],
            ["demo", "--out", "out", "--device", "cuda:"],
            ["demo"],
            ["demo", "--out", "out", "--frames", "0"],
            ["demo", "--out", "out", "--live", "walker_walk", "--tasks", "walker_walk"],
        ],
    )
    def test_bad_usage_is_2(self, cli: CliRunner, arguments: list[str]) -> None:
        result = cli.invoke(app, arguments)
        assert result.exit_code == 2
        assert "Usage:" in result.stderr
        assert result.stdout == ""

    def test_removed_backend_names_its_replacement(self, cli: CliRunner) -> None:
        result = cli.invoke(app, ["segment", "a.png", "-t", "b", "-o", "c", "--backend", "torch"])
        assert result.exit_code == 2
        said = " ".join(result.stderr.replace("│", " ").split())
        assert "backend is 'torch', which samg-fast no longer has: use onnxruntime, the portable backend" in said

    def test_leaves_no_log_handler_behind(self, cli: CliRunner, one_bundle: Path) -> None:
        logger = logging.getLogger("samg_fast")
        before = (list(logger.handlers), logger.level)
        cli.invoke(app, ["models"])
        assert (list(logger.handlers), logger.level) == before


class TestInstalled:
    def test_the_command_is_registered(self) -> None:
        scripts = [script for script in entry_points(group="console_scripts") if script.name == "samg-fast"]
        assert all(script.value == "samg_fast.cli:main" for script in scripts)


class TestDoctor:
    def test_says_what_auto_picks(self, cli: CliRunner, one_bundle: Path) -> None:
        result = cli.invoke(app, ["doctor", "--json", "-"])
        assert result.exit_code == 0, result.stderr
        figures = json.loads(result.stdout)
        available = [(backend["name"], backend["kind"]) for backend in figures["backends"] if backend["available"]]
        assert (figures["auto"], figures["auto_kind"]) in available
        asked = [(backend["name"], backend["kind"]) for backend in figures["backends"]]
        assert asked == [(row.name, row.device) for row in REGISTRY]
        assert figures["samg_fast"] == samg_fast.__version__
        assert figures["cpu"]["cores"] >= 1
        assert figures["bundles"] == [{"name": "toy", "path": str(one_bundle), "problem": ""}]
        assert f"{figures['auto']} " in result.stderr
        assert "auto picks it" in result.stderr

    def test_prints_for_people_without_json(self, cli: CliRunner, one_bundle: Path) -> None:
        result = cli.invoke(app, ["doctor"])
        assert result.exit_code == 0
        assert "bundle toy" in result.stdout
        assert "rendering" in result.stdout

    def test_a_machine_with_gpus(self, cli: CliRunner, one_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        h100, l4 = Gpu(0, "NVIDIA H100", (9, 0), 80 << 30), Gpu(1, "NVIDIA L4", (8, 9), 24 << 30)
        monkeypatch.setattr(driver, "find", lambda: Gpus((13, 0), (h100, l4)))
        statuses = [
            BackendStatus("tensorrt", False, "not installed", device="cuda"),
            BackendStatus("openvino", True, "", "2026.4", ("fp32", "bf16"), "a processor"),
            BackendStatus("onnxruntime", True, "", "1.31", ("fp32", "fp16"), "NVIDIA H100 (9.0)", "cuda"),
            BackendStatus("onnxruntime", True, "", "1.31", ("fp32",), "CPU"),
        ]
        monkeypatch.setattr(backends, "probe", lambda: statuses)
        result = cli.invoke(app, ["doctor", "--json", "-"])
        figures = json.loads(result.stdout)
        assert figures["gpu"] == {
            "driver": "13.0",
            "reason": "",
            "found": [
                {"index": 0, "name": "NVIDIA H100", "compute_capability": "9.0", "memory": 80 << 30},
                {"index": 1, "name": "NVIDIA L4", "compute_capability": "8.9", "memory": 24 << 30},
            ],
        }
        assert (figures["auto"], figures["auto_kind"]) == ("onnxruntime", "cuda")
        shown = " ".join(result.stderr.split())
        first = "gpu cuda:0 NVIDIA H100, compute capability 9.0, 80 GiB"
        assert f"{first}; cuda:1 NVIDIA L4, compute capability 8.9, 24 GiB; driver for CUDA 13.0" in shown
        assert "tensorrt cannot run: not installed" in shown
        assert "onnxruntime (cuda) 1.31 on NVIDIA H100 (9.0): fp32, fp16; auto picks it" in shown
        assert "onnxruntime (cpu) 1.31 on CPU: fp32 " in shown
        assert "openvino 2026.4 on a processor: fp32, bf16 " in shown
        assert shown.count("auto picks it") == 1

    def test_why_there_is_no_gpu_is_printed_once(
        self, cli: CliRunner, one_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reason = "there is no NVIDIA driver"
        monkeypatch.setattr(driver, "find", lambda: Gpus(reason=reason))
        statuses = [
            BackendStatus("tensorrt", False, reason, "11.2", device="cuda"),
            BackendStatus("tensorrt-rtx", False, reason, "1.7", device="cuda"),
            BackendStatus("openvino", True, "", "2026.4", ("fp32",), "a processor"),
        ]
        monkeypatch.setattr(backends, "probe", lambda: statuses)
        result = cli.invoke(app, ["doctor", "--json", "-"])
        figures = json.loads(result.stdout)
        assert figures["gpu"] == {"driver": None, "reason": reason, "found": []}
        assert [backend["reason"] for backend in figures["backends"]] == [reason, reason, ""]
        assert result.stderr.count(reason) == 1
        assert result.stderr.count("cannot run: no GPU") == 2

    def test_a_damaged_bundle_is_1(self, cli: CliRunner, one_bundle: Path) -> None:
        with (one_bundle / "decoder.onnx").open("ab") as file:
            file.write(b"x")
        result = cli.invoke(app, ["doctor"])
        assert result.exit_code == 1
        assert "truncated or altered" in " ".join(result.stdout.split())
        assert result.stderr == "samg-fast: damaged bundles: toy; install the package again\n"

    def test_no_backend_is_1(self, cli: CliRunner, one_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        absent = [BackendStatus(name, False, "it is not installed") for name in backends.BACKENDS]
        monkeypatch.setattr(backends, "probe", lambda: absent)
        result = cli.invoke(app, ["doctor"])
        assert result.exit_code == 1
        assert "cannot run: it is not installed" in result.stdout
        assert result.stderr == "samg-fast: no backend can run; pip install 'samg-fast[cpu]'\n"


class TestOptions:
    def test_options_list_all_backends_and_precisions(self) -> None:
        assert [precision.value for precision in Precision] == ["auto", *PRECISIONS]

    def test_device_reaches_the_backend(self, cli: CliRunner, one_bundle: Path, tmp_path: Path) -> None:
        image = tmp_path / "a.png"
        write_image(image, np.zeros((8, 8, 3), np.uint8))
        files = [str(image), str(image), "-o", str(tmp_path / "t.safetensors"), "--bundle", str(one_bundle)]
        result = cli.invoke(app, ["identify", *files, "--backend", "openvino", "--device", "cuda"])
        assert result.exit_code == 1
        assert result.stderr == "samg-fast: device is 'cuda', but the openvino backend runs on cpu only\n"


class TestModels:
    def test_lists_bundles_and_how_to_export_official_ones(
        self, cli: CliRunner, one_bundle: Path, tmp_path: Path
    ) -> None:
        result = cli.invoke(app, ["models", "--json", str(tmp_path / "models.json")])
        assert result.exit_code == 0
        assert "toy" in result.stdout
        assert "samg-fast pull efficientvit-sam-l0 dinov2-vits14 && samg-fast export --sam l0" in result.stdout
        found = {each["name"]: each for each in json.loads((tmp_path / "models.json").read_text())["bundles"]}
        assert found["toy"]["shipped"] is True
        assert found["toy"]["path"] == str(one_bundle)
        assert all(each["path"] for each in found.values())

    def test_json_that_cannot_be_written(self, cli: CliRunner, tmp_path: Path) -> None:
        result = cli.invoke(app, ["models", "--json", str(tmp_path / "missing" / "models.json")])
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("samg-fast: cannot write")


class TestExtra:
    def test_missing_package_names_its_extra(self) -> None:
        cure = r"distillation .*pip install 'samg-fast\[distill\]'"
        with pytest.raises(MissingExtraError, match=cure), extra("distillation", "distill"):
            importlib.import_module("a_package_that_does_not_exist")

    def test_missing_module_of_this_package_is_a_bug(self) -> None:
        with pytest.raises(ModuleNotFoundError, match="samg_fast"), extra("distillation", "distill"):
            importlib.import_module("samg_fast.nothing")


def test_identify_does_not_overwrite_its_input(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"precious")
    result = CliRunner().invoke(app, ["identify", str(image), str(image), "-o", str(image)])
    assert result.exit_code == 2
    assert image.read_bytes() == b"precious"
