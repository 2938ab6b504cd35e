"""The engine cache: lookup, damaged files, clearing, and locks between processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.key import EngineKey
from samg_fast.engine_cache.sealed_file import write_sealed
from samg_fast.errors import FileError, MissingExtraError
from support.engines import HERE
from support.paths import TESTS

pytest.importorskip("filelock", reason="filelock is not installed")

AHEAD = replace(HERE, gpu="", capabilities=("8.9", "12.0"))
ENGINE = bytes(range(256)) * 40
OTHERS: list[dict[str, Any]] = [
    {"onnx": "b" * 64},
    {"data": "c" * 64},
    {"backend": "tensorrt"},
    {"version": "1.6.1"},
    {"recipe": 2},
    {"platform": "linux aarch64"},
    {"gpu": "NVIDIA A100"},
    {"capabilities": ("8.6",)},
    {"precision": "fp32"},
    {"batches": (1,)},
]


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def put(cache: EngineCache, key: EngineKey = HERE, engine: bytes = ENGINE, role: str = "encoder") -> Path:
    with cache.lock(key):
        return cache.put(key, engine, bundle="tiny", role=role, parity="").path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_put_and_get(cache: EngineCache) -> None:
    assert cache.get(HERE) is None
    assert cache.entries() == []
    assert cache.clear() == (0, 0)
    put(cache)
    found = cache.get(HERE)
    assert found is not None
    entry, engine = found
    assert engine == ENGINE
    assert (entry.key, entry.bundle, entry.role, entry.parity) == (HERE, "tiny", "encoder", "")
    assert (entry.size, entry.path) == (len(ENGINE), cache.path(HERE))
    assert 0 <= entry.age < 60
    assert cache.entries() == [entry]


def test_the_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineCache().folder == tmp_path / "samg-fast" / "engines"


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: next(iter(change)))
def test_an_engine_for_anything_else_is_not_used(cache: EngineCache, change: dict[str, Any]) -> None:
    put(cache, replace(HERE, **change))
    assert cache.find(HERE) is None


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: next(iter(change)))
def test_engine_built_ahead_of_time_serves_only_its_gpus(cache: EngineCache, change: dict[str, Any]) -> None:
    put(cache, AHEAD, b"ahead")
    wanted = replace(HERE, **change)
    found = cache.find(wanted)
    if "gpu" in change:  # another GPU of the same compute capability
        assert found is not None
        assert found[1] == b"ahead"
    else:
        assert found is None


def test_engine_built_on_the_gpu_takes_precedence(cache: EngineCache) -> None:
    put(cache, AHEAD, b"ahead")
    put(cache, HERE, b"here")
    found = cache.find(HERE)
    assert found is not None
    assert found[1] == b"here"


def test_engine_built_on_a_gpu_does_not_serve_ahead_of_time_keys(cache: EngineCache) -> None:
    put(cache, HERE)
    assert cache.find(replace(HERE, gpu="")) is None


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "cut in its first line": (lambda data: data[:40], "has a header that is truncated or altered"),
    "cut in its header": (lambda data: data[:150], "has a header that is truncated or altered"),
    "cut in its engine": (lambda data: data[:-1], f"holds {len(ENGINE) - 1} bytes of {len(ENGINE)}"),
    "longer": (lambda data: data + b"x", f"holds {len(ENGINE) + 1} bytes of {len(ENGINE)}"),
    "another header": (lambda data: data.replace(b"tiny", b"huge"), "has a header that is truncated or altered"),
    "another engine": (lambda data: data[:-9] + b"x" + data[-8:], "is altered: its content has another SHA-256"),
    "another file": (lambda _: b"GIF89a" * 100, "does not begin as it should"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_logged_and_ignored(
    cache: EngineCache, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = put(cache)
    change, reason = DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    assert cache.find(HERE) is None
    assert cache.find(HERE) is None
    (said,) = set(warnings(caplog))
    assert said.startswith(f"the cached file {path} is not used: it ")
    assert reason in said
    assert len(warnings(caplog)) == 1
    put(cache)
    found = cache.get(HERE)
    assert found is not None
    assert found[1] == ENGINE


def test_renamed_engine_is_not_used(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    put(cache, replace(HERE, version="1.6.1")).rename(cache.path(HERE))
    assert cache.get(HERE) is None
    assert "is another engine than its name says: one for NVIDIA L4 (8.9)" in caplog.text


def test_engine_written_by_another_version_of_this_package(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.mkdir()
    write_sealed(cache.path(HERE), {"key": {"onnx": "a"}, "novelty": 1}, ENGINE)
    assert cache.get(HERE) is None
    assert cache.entries() == []
    assert "was written by another version of this package" in caplog.text


OTHER_USES: list[dict[str, Any]] = [
    {"gpu": "NVIDIA A100"},
    {"batches": (1,)},
    {"platform": "linux aarch64"},
    {"precision": "fp32"},
    {"gpu": "", "capabilities": ("8.9", "12.0")},
]


def test_stale_engines(cache: EngineCache) -> None:
    """A later engine for the same use makes earlier ones stale; `clear_stale` removes them."""
    first, second, third = replace(HERE, version="1.6.1"), replace(HERE, onnx="b" * 64), replace(HERE, recipe=2)
    others = [replace(HERE, **change) for change in OTHER_USES]
    days = {third: 3, first: 1, second: 2, **dict.fromkeys(others, 1)}
    for key, day in days.items():
        cache.put(key, ENGINE, bundle="tiny", role="encoder", parity="", built=f"2020-01-0{day}T00:00:00+00:00")
    decoder = replace(HERE, version="1.5")
    cache.put(decoder, ENGINE, bundle="tiny", role="decoder", parity="", built="2019-01-01T00:00:00+00:00")
    latest = cache.replaced(HERE, "tiny", "encoder")
    assert latest is not None
    assert latest.key == third
    assert cache.replaced(HERE, "huge", "encoder") is None
    assert {entry.key for entry in cache.stale()} == {first, second}
    assert cache.clear_stale() == (2, 2 * len(ENGINE))
    assert {entry.key for entry in cache.entries()} == {third, decoder, *others}
    assert cache.clear_stale() == (0, 0)


class TestClear:
    def test_removes_engines_and_timings(self, cache: EngineCache) -> None:
        paths = [put(cache), put(cache, AHEAD)]
        cache.put_timing(HERE, b"timed")
        cut = paths[0]
        cut.write_bytes(cut.read_bytes()[:10])
        size = sum(path.stat().st_size for path in cache.folder.iterdir())
        assert cache.clear() == (3, size)
        assert cache.entries() == []
        assert {path.suffix for path in cache.folder.iterdir()} == {".lock"}

    def test_other_files_stay(self, cache: EngineCache) -> None:
        put(cache)
        theirs = {
            "notes.txt": b"mine",
            "model.engine": b"an engine of somebody else",
            f"{'d' * 64}.engine": b"by chance of that name",
        }
        for name, content in theirs.items():
            (cache.folder / name).write_bytes(content)
        (cache.folder / "deeper").mkdir()
        assert cache.clear()[0] == 1
        assert {name: (cache.folder / name).read_bytes() for name in theirs} == theirs
        assert (cache.folder / "deeper").is_dir()

    def test_partial_files_are_removed_unless_their_build_still_runs(self, cache: EngineCache) -> None:
        path = put(cache)
        rest = path.with_name(f".{path.stem}.0123abcd.part.engine")
        path.rename(rest)
        other = EngineCache(cache.folder)
        with cache.lock(HERE):
            assert other.clear() == (0, 0)
        assert cache.entries() == []  # partial files are not listed
        assert other.clear()[0] == 1
        assert not rest.exists()


class TestTiming:
    def test_is_reused_for_the_same_library_and_gpu(self, cache: EngineCache) -> None:
        assert cache.timing(HERE) == b""
        cache.put_timing(HERE, b"timed")
        assert cache.timing(replace(HERE, onnx="b" * 64, precision="fp32", batches=(1,))) == b"timed"
        others: list[dict[str, Any]] = [
            {"version": "2"},
            {"gpu": "A100"},
            {"backend": "x"},
            {"platform": "linux aarch64"},
        ]
        for change in others:
            assert cache.timing(replace(HERE, **change)) == b""
        assert cache.entries() == []

    def test_damaged_one_is_logged_and_ignored(self, cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
        cache.put_timing(HERE, b"timed")
        (path,) = cache.folder.iterdir()
        path.write_bytes(path.read_bytes()[:-2])
        assert cache.timing(HERE) == b""
        assert "holds 3 bytes of 5" in caplog.text


PROGRAM = """
import logging, sys, time
sys.path.insert(0, sys.argv[1])
from support.engines import HERE
from samg_fast.engine_cache.cache import EngineCache
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
cache = EngineCache(sys.argv[2])
with cache.lock(HERE):
    print("locked", flush=True)
    {}
"""


def start(cache: EngineCache, then: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-u", "-c", PROGRAM.format(then), str(TESTS), str(cache.folder)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


class TestOtherProcesses:
    def test_second_process_waits_and_logs_it(self, cache: EngineCache) -> None:
        with cache.lock(HERE):
            second = start(cache, "print(cache.get(HERE)[1] == b'theirs')")
            assert line(second) == "another process builds this engine for NVIDIA L4 (8.9): waiting for it\n"
            cache.put(HERE, b"theirs", bundle="tiny", role="encoder", parity="")
        assert second.communicate(timeout=60) == ("locked\nTrue\n", "")

    @pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
    def test_lock_of_a_killed_process_is_released(self, cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "samg_fast")
        holder = start(cache, "time.sleep(60)")
        assert line(holder) == "locked\n"
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(timeout=60) == -signal.SIGKILL
        with cache.lock(HERE):
            assert caplog.messages == []
        holder.communicate()

    @pytest.mark.skipif(os.name != "posix", reason="limits on the size of files are POSIX's")
    def test_a_disk_that_fills_while_writing(self, cache: EngineCache) -> None:
        # A limit on file sizes makes a write fail half-way, like a full disk
        limited = (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (70000, 70000)); "
            "cache.put(HERE, bytes(100000), bundle='tiny', role='encoder', parity='')"
        )
        put(cache, AHEAD, b"before")
        _, errors = start(cache, limited).communicate(timeout=60)
        last = errors.strip().splitlines()[-1]
        start_of_it = f"samg_fast.errors.FileError: cannot keep the engine of tiny's encoder in {cache.folder}: "
        assert last.startswith(f"{start_of_it}File too large; it needs 100000 bytes, and ")
        assert last.endswith(" are free")
        assert cache.get(HERE) is None
        assert [path for path in cache.folder.iterdir() if path.suffix != ".lock"] == [cache.path(AHEAD)]


def test_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "engines")
    with (
        pytest.raises(FileError, match=r"cannot write into the engine cache .*engines: Not a directory"),
        cache.lock(HERE),
    ):
        pass
    with pytest.raises(FileError, match="cannot write into the engine cache"):
        cache.put(HERE, b"", bundle="tiny", role="encoder", parity="")
    with pytest.raises(FileError, match="cannot read the engine cache"):
        EngineCache(tmp_path / "file").entries()


def test_without_filelock(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'samg-fast\[tensorrt-rtx\]'"), cache.lock(HERE):
        pass
