"""Engines of bundles are built once, checked and cached: on the fake TensorRT, and with the real TensorRT-RTX."""

from __future__ import annotations

import logging
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from samg_fast import engine_cache
from samg_fast.bundle import Bundle, Role, write_manifest
from samg_fast.bundle.zoo import resolve
from samg_fast.devices import driver
from samg_fast.engine_cache import factory
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.factory import BuildTarget
from samg_fast.errors import BackendError, EngineParityError, FileError, InputError, MissingExtraError
from support.engines import fake_backends, in_halves

pytest.importorskip("filelock", reason="filelock is not installed")


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return Bundle.open(resolve("tiny"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return fake_backends(monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def fine(role: Role, precision: str, engine: bytes) -> str:
    return "agrees"


def prepared(bundle: Bundle, backend: Any, **options: Any) -> list[engine_cache.EngineReport]:
    """Prepare a bundle, and return the reports of its engines."""
    return [made.report for made in engine_cache.prepare(bundle, backend, **{"check": fine, **options})]


def state(reports: Sequence[engine_cache.EngineReport]) -> list[tuple[str, str, bool, str]]:
    return [(each.role, each.precision, each.cached, each.parity) for each in reports]


class TestPrepare:
    def test_builds_once(self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]) -> None:
        backend = fake()
        seen: list[tuple[str, str]] = []

        def watch(role: Role, precision: str) -> Callable[..., None]:
            seen.append((role, precision))
            return lambda phase, done, of, parent: None

        first = prepared(tiny, backend, cache=cache, watch=watch)
        made = engine_cache.prepare(tiny, backend, cache=cache, check=fine, watch=watch)
        again = [each.report for each in made]
        assert state(first) == [("encoder", "fp32", False, "agrees"), ("decoder", "fp32", False, "agrees")]
        assert state(again) == [("encoder", "fp32", True, "agrees"), ("decoder", "fp32", True, "agrees")]
        assert seen == [("encoder", "fp32"), ("decoder", "fp32")]
        for report, engine in made:
            assert report.target == "NVIDIA L4 (8.9)"
            found = next(cache.get(entry.key) for entry in cache.entries() if entry.path == report.path)
            assert found is not None
            assert engine == found[1]
            assert len(engine) == report.bytes
            assert report.to_dict()["path"] == str(report.path)

    def test_checks_on_the_gpu(self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]) -> None:
        reports = prepared(tiny, fake(), cache=cache, check=None)
        assert [each.parity.startswith("cosine 1.000000 with ") for each in reports] == [True, True]

    def test_each_network_at_its_own_precision(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        prepared(tiny, fake(), cache=cache)
        reports = prepared(in_halves(tiny), fake(precision="fp16"), cache=cache)
        assert state(reports) == [("encoder", "fp16", False, "agrees"), ("decoder", "fp32", True, "agrees")]

    def test_features_have_their_own_engine(
        self, bundle_folder: Path, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        reports = prepared(Bundle.open(bundle_folder), fake(), cache=cache)
        assert [report.role for report in reports] == ["encoder", "features", "decoder"]

    @pytest.mark.parametrize("change", [{"index": 1}, {"batches": (1,)}, {"version": "10.9"}, {"name": "tensorrt-rtx"}])
    def test_another_machines_engine_is_not_used(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any], change: dict[str, Any]
    ) -> None:
        prepared(tiny, fake(**change), cache=cache)
        assert not any(report.cached for report in prepared(tiny, fake(), cache=cache))

    @pytest.mark.parametrize(("module", "value"), [(factory, 2), (platform, "aarch64")])
    def test_another_recipe_or_processor(
        self,
        tiny: Bundle,
        cache: EngineCache,
        fake: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        module: Any,
        value: Any,
    ) -> None:
        """Engines built with other flags, or on another CPU architecture for the same GPU, are not used."""
        caplog.set_level(logging.INFO, "samg_fast")
        prepared(tiny, fake(), cache=cache)
        if module is factory:
            monkeypatch.setattr(factory, "RECIPE", value)
        else:
            monkeypatch.setattr(platform, "machine", lambda: value)
        caplog.clear()
        assert not any(report.cached for report in prepared(tiny, fake(), cache=cache))
        assert len(cache.entries()) == 4
        said = ["the one there is was built by another version of samg-fast" in each for each in caplog.messages]
        assert any(said) == (module is factory)

    def test_outdated_engines_are_logged_and_stay(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "samg_fast")
        old = prepared(tiny, fake("10.13.2.6"), cache=cache)
        new = prepared(tiny, fake("11.4.0.106"), cache=cache)
        assert (
            "rebuilding the engine of tiny's encoder at fp32 for NVIDIA L4 (8.9): the one there is was built by "
            "tensorrt 10.13.2.6, this is 11.4.0.106"
        ) in caplog.messages
        assert {entry.path for entry in cache.entries()} == {report.path for report in [*old, *new]}

    def test_two_versions_share_a_cache(self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]) -> None:
        """Each version builds once, in whatever order they run."""
        cached = [
            {report.cached for report in prepared(tiny, fake(version), cache=cache)}
            for version in ("10.13.2.6", "10.14.1.48", "10.13.2.6", "10.14.1.48")
        ]
        assert cached == [{False}, {False}, {True}, {True}]

    def test_two_bundles_of_one_name_share_a_cache(
        self, tiny: Bundle, tmp_path: Path, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        changed = rewritten(tiny, tmp_path / "changed")
        cached = [
            [report.cached for report in prepared(bundle, fake(), cache=cache)]
            for bundle in (tiny, changed, tiny, changed)
        ]
        assert cached == [[False, False], [False, True], [True, True], [True, True]]

    def test_outdated_engine_stays_if_the_new_one_fails(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        old = prepared(tiny, fake("10.13.2.6"), cache=cache)
        with pytest.raises(BackendError, match="does not agree"):
            engine_cache.prepare(tiny, fake("11.4.0.106"), cache=cache, check=refusing)
        assert {entry.path for entry in cache.entries()} == {report.path for report in old}

    def test_engine_of_another_file(
        self,
        tiny: Bundle,
        tmp_path: Path,
        cache: EngineCache,
        fake: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "samg_fast")
        prepared(tiny, fake(), cache=cache)
        changed = rewritten(tiny, tmp_path / "changed")
        reports = prepared(changed, fake(), cache=cache)
        assert [report.cached for report in reports] == [False, True]
        assert any(each.endswith("the one there is was built of another ONNX file") for each in caplog.messages)
        assert len(cache.entries()) == 3

    def test_timing_caches_are_passed_to_the_next_build(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        backend = fake()
        prepared(tiny, backend, cache=cache)
        given = [call[1] for call in backend.module.calls if call[0] == "set_timing_cache"]
        assert given == [b"", b"10.13.2.6 timed"]

    def test_damaged_engine_is_built_again(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        first, _ = prepared(tiny, fake(), cache=cache)
        first.path.write_bytes(first.path.read_bytes()[:-1])
        reports = prepared(tiny, fake(), cache=cache)
        assert [report.cached for report in reports] == [False, True]
        assert sum("is truncated" in each for each in caplog.messages) == 1

    def test_without_a_cpu_backend_it_is_not_checked(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        def check(role: Role, precision: str, engine: bytes) -> str:
            raise MissingExtraError("running a bundle", "cpu")

        (first, _) = prepared(tiny, fake(), cache=cache, check=check)
        assert first.parity.startswith("not checked: running a bundle needs packages that are not installed")
        assert "the engine of tiny's encoder is not checked: running a bundle needs" in caplog.text
        (first, _) = prepared(tiny, fake(), cache=cache)  # checked as soon as that is possible
        assert (first.cached, first.parity) == (True, "agrees")


def refusing(role: Role, precision: str, engine: bytes) -> str:
    raise EngineParityError("does not agree")


def rewritten(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle whose encoder's file has other bytes."""
    from samg_fast.bundle import sha256_of

    shutil.copytree(bundle.path, folder)
    model = onnx.load(folder / "encoder.onnx")
    model.doc_string = "another"
    onnx.save(model, folder / "encoder.onnx")
    digest = sha256_of(folder / "encoder.onnx")
    specs = {role: replace(getattr(bundle.manifest, role), sha256=digest) for role in ("encoder", "features")}
    write_manifest(folder, replace(bundle.manifest, **specs))  # type: ignore[arg-type]
    return Bundle.open(folder)


class TestAheadOfTime:
    def test_it_serves_a_gpu_and_is_checked_there_first(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        fake(name="tensorrt-rtx", version="1.7.1")
        options: dict[str, Any] = {"backend": "tensorrt-rtx", "capabilities": ["12.0", "8.9", "8.9"], "cache": cache}
        built = engine_cache.build(tiny, **options)
        assert [(each.target, each.cached) for each in built] == [("8.9, 12.0", False)] * 2
        assert all(each.parity.startswith("not checked: ") for each in built)  # without cuda-core it cannot run
        long_ago = "2020-01-01T00:00:00+00:00"
        for entry in cache.entries():
            found = cache.get(entry.key)
            assert found is not None
            cache.put(entry.key, found[1], bundle="tiny", role=entry.role, parity="", built=long_ago)
        seen: list[str] = []

        def check(role: Role, precision: str, engine: bytes) -> str:
            seen.append(role)
            return "agrees"

        backend = fake(name="tensorrt-rtx", version="1.7.1")
        for _ in range(2):
            used = prepared(tiny, backend, cache=cache, check=check)
            assert [(each.target, each.cached, each.parity) for each in used] == [("8.9, 12.0", True, "agrees")] * 2
        assert seen == ["encoder", "decoder"]
        assert [entry.built for entry in cache.entries()] == [long_ago] * 2

    def test_it_is_removed_if_it_does_not_agree(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]
    ) -> None:
        fake(name="tensorrt-rtx", version="1.7.1")
        engine_cache.build(tiny, backend="tensorrt-rtx", capabilities=["8.9"], cache=cache)
        with pytest.raises(EngineParityError):
            engine_cache.prepare(tiny, fake(name="tensorrt-rtx", version="1.7.1"), cache=cache, check=refusing)
        assert [entry.role for entry in cache.entries()] == ["decoder"]

    def test_it_stays_if_it_cannot_run(self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]) -> None:
        def full(role: Role, precision: str, engine: bytes) -> str:
            raise BackendError("needs 3 MiB of GPU 0's memory")

        fake(name="tensorrt-rtx", version="1.7.1")
        engine_cache.build(tiny, backend="tensorrt-rtx", capabilities=["8.9"], cache=cache)
        with pytest.raises(BackendError, match="needs 3 MiB"):
            engine_cache.prepare(tiny, fake(name="tensorrt-rtx", version="1.7.1"), cache=cache, check=full)
        assert len(cache.entries()) == 2

    def test_read_only_cache(
        self,
        tiny: Bundle,
        cache: EngineCache,
        fake: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake(name="tensorrt-rtx", version="1.7.1")
        engine_cache.build(tiny, backend="tensorrt-rtx", capabilities=["8.9"], cache=cache)

        def refused(*_: object, **__: object) -> None:
            raise FileError("cannot keep it: Read-only file system")

        monkeypatch.setattr(cache, "put", refused)
        reports = prepared(tiny, fake(name="tensorrt-rtx", version="1.7.1"), cache=cache)
        assert [(each.cached, each.parity) for each in reports] == [(True, "agrees")] * 2
        assert "the engine holds, and will be checked again each time: cannot keep it" in caplog.text


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (
                {"backend": "openvino"},
                "backend is 'openvino', which compiles no engines; expected tensorrt or tensorrt-rtx",
            ),
            ({"precision": "fp16"}, "precision is 'fp16', but bundle tiny has files for fp32 only"),
            (
                {"capabilities": ["9.9"]},
                "compute_capability is '9.9', but TensorRT-RTX 1.7.1 builds ahead of time for ",
            ),
            ({"capabilities": ["8.9"], "batches": ()}, "batches is empty, expected one whole number or more"),
            ({"capabilities": ["8.9"], "batches": (0, 1)}, "batches[0] must be from 1 to 4096, not 0"),
            ({"capabilities": ["8.9"], "batches": (1, 99999)}, "batches[1] must be from 1 to 4096, not 99999"),
        ],
    )
    def test_one_sentence(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any], options: dict[str, Any], sentence: str
    ) -> None:
        fake(name="tensorrt-rtx", version="1.7.1")
        with pytest.raises(InputError) as raised:
            engine_cache.build(tiny, **{"backend": "tensorrt-rtx", "cache": cache, **options})
        assert sentence in str(raised.value)

    def test_without_a_gpu(
        self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(name="tensorrt-rtx", version="1.7.1")
        monkeypatch.setattr(driver, "find", lambda: driver.Gpus(reason="there is no NVIDIA driver"))
        wanted = (
            "tensorrt-rtx cannot build for the GPU here: there is no NVIDIA driver; name a compute capability to build "
            "ahead of time: 8.9, 12.0"
        )
        with pytest.raises(BackendError) as raised:
            engine_cache.build(tiny, backend="tensorrt-rtx", cache=cache)
        assert str(raised.value) == wanted

    def test_fixed_batch_size(self, tiny: Bundle, cache: EngineCache, fake: Callable[..., Any]) -> None:
        fake(name="tensorrt-rtx", version="1.7.1")
        fixed = Bundle(tiny.path, replace(tiny.manifest, batch=2))
        with pytest.raises(InputError, match=r"batches is \(1, 2\), but bundle tiny takes 2 at once only"):
            engine_cache.build(fixed, backend="tensorrt-rtx", capabilities=["8.9"], batches=(1, 2), cache=cache)


PROGRAM = """
import logging, sys, time
from samg_fast import engine_cache
from samg_fast.bundle import Bundle
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.bundle.zoo import resolve
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
def watch(role, precision):
    def progress(phase, done, of, parent):
        {}
    return progress
cache, tiny = EngineCache(sys.argv[1]), Bundle.open(resolve("tiny"))
reports = engine_cache.build(tiny, backend="tensorrt-rtx", capabilities=["8.9"], cache=cache, watch=watch)
print([report.cached for report in reports])
"""


class TestOtherProcesses:
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")

    @staticmethod
    def start(cache: EngineCache, during: str = "pass") -> subprocess.Popen[str]:
        arguments = [sys.executable, "-u", "-c", PROGRAM.format(during), str(cache.folder)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def lock(cache: EngineCache, bundle: Bundle) -> Any:
        from samg_fast.backends.tensorrt import dialect

        target = BuildTarget("tensorrt-rtx", dialect.load("tensorrt-rtx").version, (1, 8), ("8.9",))
        return cache.lock(target.key(bundle.file("encoder"), "fp32"))

    def test_two_at_once_build_once(self, tiny: Bundle, cache: EngineCache) -> None:
        with self.lock(cache, tiny):  # both processes start before one builds
            both = [self.start(cache) for _ in range(2)]
            for process in both:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("another process builds this engine for 8.9")
        said = [process.communicate(timeout=120) for process in both]
        assert [errors for _, errors in said] == ["", ""]
        lines = [line for output, _ in said for line in output.splitlines()]
        for role in ("encoder", "decoder"):
            assert sum(line.startswith(f"building the engine of tiny's {role} at fp32 for 8.9") for line in lines) == 1
        assert len(cache.entries()) == 2

    def test_killed_builder_blocks_no_other(self, cache: EngineCache) -> None:
        killed = self.start(cache, "print('under way'); time.sleep(60)")
        assert killed.stdout is not None
        assert killed.stdout.readline().startswith("building the engine of tiny's encoder")
        assert killed.stdout.readline() == "under way\n"
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
        assert {path.suffix for path in cache.folder.iterdir()} == {".lock"}
        output, errors = self.start(cache).communicate(timeout=120)
        assert (output.splitlines()[-1], errors) == ("[False, False]", "")
        assert "another process" not in output
