"""Add a part of `on_gpu.sh` to its summary.json and print a line; exit status 1 if it did not end as it should."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

VERSIONS = """
import importlib.metadata as metadata, json
wanted = ("cuda-", "hypothesis", "nanobind", "numpy", "nvidia-c", "onnx", "openvino", "pytest", "samg-fast",
          "scikit-build", "tensorrt", "torch")
names = {each.name.lower().replace("_", "-") for each in metadata.distributions()}
print(json.dumps({name: metadata.version(name) for name in sorted(names) if name.startswith(wanted)}))
"""


def said(*command: str) -> str:
    """Return what a command prints; nothing if it cannot run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def machine() -> dict[str, Any]:
    """Return the GPU, its driver and tools, and the processor."""
    gpus = said("nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader")
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "device": [line.rpartition(", ")[0] for line in gpus.splitlines()],
        "driver": gpus.rpartition(", ")[2] or None,
        "nvcc": said("nvcc", "--version").rpartition("\n")[2] or None,
        "compute_sanitizer": said("compute-sanitizer", "--version").rpartition("\n")[2] or None,
        "processor": models[0].partition(": ")[2] if models else None,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }


def tests(report: Path) -> dict[str, int] | None:
    """Return how many tests there were of each outcome; None if pytest wrote no report."""
    try:
        suite = ElementTree.parse(report).getroot().find("testsuite")  # noqa: S314 (pytest's own)
    except (OSError, ElementTree.ParseError):
        return None
    if suite is None:
        return None
    counts = {name: int(suite.get(name, 0)) for name in ("failures", "errors", "skipped")}
    return {"passed": int(suite.get("tests", 0)) - sum(counts.values()), **counts}


def main() -> int:
    """Read the arguments that `on_gpu.sh` gives."""
    out, python, commit, rehearsal, name, *numbers = sys.argv[1:10]
    seconds, limit, status, expected = map(int, numbers)
    command, reason = (*sys.argv[10:], "")[:2]
    outcome = {0: "passed", 124: "timed out", 137: "killed"}.get(status, "failed")
    record = {
        "part": name,
        "command": command,
        "seconds": seconds,
        "limit": limit,
        "exit": status,
        "expected": expected,
        "outcome": f"left out: {reason}" if reason else outcome,
        "tests": tests(Path(out, f"{name}.xml")),
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    summary = Path(out, "summary.json")
    before = json.loads(summary.read_text()) if summary.exists() else {**machine(), "parts": []}
    versions = {"python": platform.python_version(), **json.loads(said(python, "-c", VERSIONS) or "{}")}
    about = {"commit": commit, "rehearsal": rehearsal == "true", "versions": versions}
    unfinished = summary.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({**before, **about, "parts": [*before["parts"], record]}, indent=2) + "\n")
    unfinished.replace(summary)
    counts = ", ".join(f"{count} {what}" for what, count in (record["tests"] or {}).items() if count)
    how = "" if status == expected == 0 else "as meant" if status == expected else f"exit status {status}"
    print("  ".join(filter(None, (f"{name:18}{seconds:4} s", record["outcome"], how, counts))), flush=True)
    return int(status != expected)


if __name__ == "__main__":
    sys.exit(main())
