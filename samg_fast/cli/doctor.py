"""``samg-fast doctor``."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from samg_fast.cli.common import JsonOption, check_json, say, show_table, write_json
from samg_fast.errors import SamgError

# Names of distributions; of several, such as one wheel per CUDA version, the first installed one counts
_PACKAGES = {
    "numpy": ("numpy",),
    "pillow": ("pillow",),
    "av": ("av",),
    "safetensors": ("safetensors",),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-gpu": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt", "tensorrt_cu13", "tensorrt_cu12"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12"),
    "cuda-bindings": ("cuda-bindings",),
    "cuda-core": ("cuda-core",),
    "mujoco": ("mujoco",),
    "dm-control": ("dm-control",),
    "onnx": ("onnx",),
    "torch": ("torch",),
    "tritonclient": ("tritonclient",),
}

# Runs in a separate process: a failed OpenGL initialisation cannot be undone, and some drivers end the process.
_RENDERING = """
from samg_fast.envs.rendering import ensure_gl
print(ensure_gl())
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
context.free()
"""


def doctor(json: JsonOption = None) -> None:
    """Report what can run on this machine, what cannot, and why.

    Exit status 1 if no backend can run, or a shipped bundle is damaged.
    """
    from samg_fast import __version__
    from samg_fast.backends import preferred, probe
    from samg_fast.devices import machine

    check_json(json)
    backends = probe()
    auto = preferred(backends)
    bundles = _bundles()
    figures: dict[str, Any] = {
        "samg_fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": machine.cpu_name(), "cores": machine.cores(), "features": list(machine.cpu_features())},
        "packages": {package: _version(names) for package, names in _PACKAGES.items()},
        "gpu": _gpu(),
        "backends": [
            {
                "name": status.name,
                "kind": status.device,
                "available": status.available,
                "reason": status.reason,
                "version": status.version,
                "precisions": list(status.precisions),
                "device": status.detail,
                "untried": status.untried,
            }
            for status in backends
        ],
        "kernels": _kernels(),
        "auto": auto.name if auto else None,
        "auto_kind": auto.device if auto else None,
        "rendering": _rendering(),
        "cache": _cache(),
        "bundles": bundles,
    }
    _show(figures, json)
    write_json(json, figures)
    damaged = [bundle["name"] for bundle in bundles if bundle["problem"]]
    if damaged:
        raise SamgError(f"damaged bundles: {', '.join(damaged)}; install the package again")
    if figures["auto"] is None:
        raise SamgError("no backend can run; pip install 'samg-fast[cpu]'")


def _version(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _gpu() -> dict[str, Any]:
    """Return what the NVIDIA driver reports."""
    from samg_fast.devices.driver import find

    gpus = find()
    return {
        "driver": ".".join(map(str, gpus.driver)) or None,
        "reason": gpus.reason,
        "found": [
            {"index": gpu.index, "name": gpu.name, "compute_capability": gpu.capability, "memory": gpu.memory}
            for gpu in gpus.found
        ],
    }


def _kernels() -> dict[str, Any]:
    """Return which instruction set the CPU kernels use, and whether the CUDA kernels can be loaded, or why not."""
    import samg_fast._engine as engine

    reason = ""
    try:
        importlib.import_module("samg_fast._engine_cuda")
    except ModuleNotFoundError:
        reason = "not built for CUDA: nvcc was not found, or not wanted"
    except ImportError as error:
        reason = f"those built for CUDA cannot be loaded ({error})"
    return {
        "instruction_set": engine.instruction_set(),
        "of": list(engine.instruction_sets()),
        "cuda": not reason,
        "cuda_reason": reason,
    }


def _bundles() -> list[dict[str, Any]]:
    """Verify the SHA-256 of every file of every named bundle."""
    from samg_fast.bundle import Bundle
    from samg_fast.bundle.zoo import bundles

    found = []
    for info in bundles():
        problem = ""
        try:
            Bundle.open(info.path)
        except SamgError as error:
            problem = str(error)
        found.append({"name": info.name, "path": str(info.path), "problem": problem})
    return found


def _cache() -> dict[str, Any]:
    """Return where what was downloaded or built is kept, or why nothing can be found there."""
    from samg_fast.files import cache_folder

    try:
        folder = cache_folder()
    except SamgError as error:
        return {"path": None, "reason": str(error)}
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:  # made when something is kept
        return {"path": str(folder), "reason": ""}
    except OSError as error:
        return {"path": str(folder), "reason": f"cannot read {folder}: {error.strerror}; set XDG_CACHE_HOME"}
    return {"path": str(folder), "reason": ""}


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
    cuda = kernels["cuda_reason"] or "built for CUDA too"
    rows.append(("kernels", f"{kernels['instruction_set']}, of {', '.join(kernels['of'])}; {cuda}"))
    rows.append(("gpu", _gpu_words(figures["gpu"])))
    rows += [_backend_row(backend, figures) for backend in figures["backends"]]
    rendering = figures["rendering"]
    words = f"MUJOCO_GL={rendering['gl']}" if rendering["available"] else f"cannot run: {rendering['reason']}"
    rows.append(("rendering", words))
    rows.append(("cache", figures["cache"]["reason"] or figures["cache"]["path"]))
    rows += [(f"bundle {each['name']}", each["problem"] or f"whole, {each['path']}") for each in figures["bundles"]]
    if not figures["bundles"]:
        rows.append(("bundles", "none ships with this checkout"))
    show_table(("", ""), rows, json_to=json)
    say("", json_to=json)


def _gpu_words(gpu: dict[str, Any]) -> str:
    words = [
        f"cuda:{each['index']} {each['name']}, compute capability {each['compute_capability']}, "
        f"{each['memory'] / (1 << 30):.0f} GiB"
        for each in gpu["found"]
    ]
    driver = [f"driver for CUDA {gpu['driver']}"] if gpu["driver"] else []
    return "; ".join([*words, *driver, *([gpu["reason"]] if gpu["reason"] else [])])


def _backend_row(backend: dict[str, Any], figures: dict[str, Any]) -> tuple[str, str]:
    """Describe a backend, with the kind of device in its name if it has several."""
    several = sum(each["name"] == backend["name"] for each in figures["backends"]) > 1
    name = f"{backend['name']} ({backend['kind']})" if several else backend["name"]
    if backend["available"]:
        chosen = (backend["name"], backend["kind"]) == (figures["auto"], figures["auto_kind"])
        runs = f"{backend['version']} on {backend['device']}: {', '.join(backend['precisions'])}"
        untried = f"; auto passes over it: {backend['untried']}" if backend["untried"] else ""
        return name, runs + "; auto picks it" * chosen + untried
    # The reason common to all GPU backends is printed once, in the row of the GPU
    reason = "no GPU" if backend["reason"] == figures["gpu"]["reason"] else backend["reason"]
    return name, f"cannot run: {reason}"
