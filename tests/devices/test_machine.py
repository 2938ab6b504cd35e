"""The processor of this machine."""

from __future__ import annotations

import os

import pytest

from samg_fast.devices import machine


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    assert machine.cores() == 3
    assert machine.processor() == f"{machine.cpu_name()}, 3 cores"
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1
    assert machine.processor().endswith(", 1 core")


def test_threads_of_one_core_count_once_where_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    monkeypatch.setattr(machine.Path, "read_text", lambda path: "2" if "cpu2/" in str(path) else "0-1")
    assert machine.physical_cores() == 2

    def unknown(path: object) -> str:
        raise OSError

    monkeypatch.setattr(machine.Path, "read_text", unknown)
    assert machine.physical_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.physical_cores() == machine.cores()


def test_features_as_linux_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"flags": "fpu avx2 amx_bf16", "model name": "A processor"})
    assert machine.cpu_features() == ("avx2", "amx_bf16")
    assert machine.cpu_name() == "A processor"
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"Features": "fp asimd sve"})
    assert machine.cpu_features() == ("asimd", "sve")
    monkeypatch.setattr(machine, "_cpuinfo", dict)
    assert machine.cpu_features() == ()
    assert machine.cpu_name()
