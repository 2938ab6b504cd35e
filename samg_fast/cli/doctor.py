"""``samg-fast doctor``."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from samg_fast.cli.common import JsonOption, check_json, say, show_table, write_json
from samg_fast.errors import SamgError

_PACKAGES = ("numpy", "pillow", "av", "safetensors", "openvino", "onnxruntime", "mujoco", "dm-control", "onnx", "torch")

# In a process of its own: a failed attempt at OpenGL cannot be taken back, and some drivers end the process.
_RENDERING = """
from samg_fast.envs.rendering import ensure_gl
print(ensure_gl())
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
context.free()
"""


def doctor(json: JsonOption = None) -> None:
    """Say what runs here, what does not, and why.

    Exit status 1 if no backend can run, or a shipped bundle is damaged.
    """
    from samg_fast import __version__, machine
    from samg_fast.backends import probe

    check_json(json)
    backends = probe()
    bundles = _bundles()
    figures: dict[str, Any] = {
        "samg_fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": machine.cpu_name(), "cores": machine.cores(), "features": list(machine.cpu_features())},
        "packages": {package: _version(package) for package in _PACKAGES},
        "backends": [
            {
                "name": status.name,
                "available": status.available,
                "reason": status.reason,
                "version": status.version,
                "precisions": list(status.precisions),
                "device": status.detail,
            }
            for status in backends
        ],
        "kernels": _kernels(),
        "auto": next((status.name for status in backends if status.available), None),
        "rendering": _rendering(),
        "bundles": bundles,
    }
    _show(figures, json)
    write_json(json, figures)
    damaged = [bundle["name"] for bundle in bundles if bundle["problem"]]
    if damaged:
        raise SamgError(f"damaged bundles: {', '.join(damaged)}; install the package again")
    if figures["auto"] is None:
        raise SamgError("no backend can run; pip install 'samg-fast[cpu]'")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _kernels() -> dict[str, Any]:
    """Say which instruction set the CPU kernels use, and whether the CUDA ones were built."""
    import samg_fast._engine as engine

    built = importlib.util.find_spec("samg_fast._engine_cuda") is not None
    return {"instruction_set": engine.instruction_set(), "of": list(engine.instruction_sets()), "cuda": built}


def _bundles() -> list[dict[str, Any]]:
    """Compare every file of every shipped bundle with its SHA-256."""
    from samg_fast.bundle import Bundle
    from samg_fast.zoo import bundles

    found = []
    for info in bundles():
        if info.path is None:
            continue
        problem = ""
        try:
            Bundle.open(info.path)
        except SamgError as error:
            problem = str(error)
        found.append({"name": info.name, "path": str(info.path), "problem": problem})
    return found


def _rendering() -> dict[str, Any]:
    """Try MuJoCo's off-screen rendering, which only live environments need."""
    if importlib.util.find_spec("mujoco") is None:
        return {"available": False, "reason": "MuJoCo is not installed: pip install 'samg-fast[dmc]'", "gl": None}
    tried = subprocess.run([sys.executable, "-c", _RENDERING], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return {"available": True, "reason": "", "gl": tried.stdout.strip()}
    last = (tried.stderr.strip().splitlines() or [f"the attempt ended with status {tried.returncode}"])[-1]
    return {"available": False, "reason": last, "gl": None}


def _show(figures: dict[str, Any], json: Any) -> None:
    cpu = figures["cpu"]
    rows = [
        ("samg-fast", figures["samg_fast"]),
        ("python", f"{figures['python']} on {figures['platform']}"),
        ("cpu", f"{cpu['name']}, {cpu['cores']} cores: {' '.join(cpu['features']) or 'features unknown'}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in figures["packages"].items() if version)),
        ("missing", ", ".join(name for name, version in figures["packages"].items() if not version) or "none"),
    ]
    kernels = figures["kernels"]
    cuda = "built for CUDA too" if kernels["cuda"] else "not built for CUDA: nvcc was not found, or not wanted"
    rows.append(("kernels", f"{kernels['instruction_set']}, of {', '.join(kernels['of'])}; {cuda}"))
    for backend in figures["backends"]:
        chosen = "; auto picks it" if backend["name"] == figures["auto"] else ""
        runs = f"{backend['version']} on {backend['device']}: {', '.join(backend['precisions'])}{chosen}"
        rows.append((backend["name"], runs if backend["available"] else f"cannot run: {backend['reason']}"))
    rendering = figures["rendering"]
    words = f"MUJOCO_GL={rendering['gl']}" if rendering["available"] else f"cannot run: {rendering['reason']}"
    rows.append(("rendering", words))
    rows += [(f"bundle {each['name']}", each["problem"] or f"whole, {each['path']}") for each in figures["bundles"]]
    if not figures["bundles"]:
        rows.append(("bundles", "none ships with this checkout"))
    show_table(("", ""), rows, json_to=json)
    say("", json_to=json)
