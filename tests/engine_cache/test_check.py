"""Engines are compared with their bundle's fp32 files, and errors name the layers that fail."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from samg_fast import engine_cache
from samg_fast.backends import Network, first_fitting
from samg_fast.bundle import Bundle
from samg_fast.bundle.zoo import resolve
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.check import EngineCheck, find_layers
from samg_fast.errors import BackendError, EngineParityError, MissingExtraError
from support.engines import fake_backends, in_halves
from support.synthetic_bundle import write_fitted_bundle

pytest.importorskip("filelock", reason="filelock is not installed")


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return Bundle.open(resolve("tiny"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return fake_backends(monkeypatch)


def garbage(network: Network) -> Network:
    """Return a network whose outputs are NaN."""
    return lambda **inputs: {name: np.full_like(x, np.nan) for name, x in network(**inputs).items()}


class TestCheck:
    """`EngineCheck` with networks in place of engines: b"good" gives what the file gives, anything else garbage."""

    @staticmethod
    def check(bundle: Bundle, find: Any, **changes: Any) -> EngineCheck:
        def run(name: str, engine: bytes) -> Network:
            network = first_fitting("fp32").open(bundle.path / name)
            return network if engine == b"good" else garbage(network)

        options: dict[str, Any] = {"build": lambda path, precision: b"bad", "run": run, "find": find, **changes}
        return EngineCheck(bundle, (1, 3), **options)

    @staticmethod
    def unexpected(*_: object) -> tuple[str, ...]:
        raise AssertionError("nothing is to be found")

    def test_a_good_engine(self, tiny: Bundle) -> None:
        words = self.check(tiny, self.unexpected)("encoder", "fp32", b"good")
        assert words.startswith("cosine 1.000000 with ")

    def test_a_fitted_bundles_engine(self, tmp_path: Path) -> None:
        bundle = Bundle.open(write_fitted_bundle(tmp_path))
        check = self.check(bundle, lambda *_: ("/Conv",))
        assert check("network", "fp32", b"good").startswith("cosine 1.000000 with ")
        with pytest.raises(EngineParityError, match="the engine of fitted's network at fp32 does not agree"):
            check("network", "fp32", b"bad")

    def test_every_batch_size_is_tried(self, tiny: Bundle) -> None:
        def run(name: str, engine: bytes) -> Network:
            network = first_fitting("fp32").open(tiny.path / name)

            def call(**inputs: Any) -> dict[str, Any]:
                found = network(**inputs)
                alone = len(next(iter(inputs.values()))) == 1
                return found if alone else {each: -x for each, x in found.items()}

            return call

        with pytest.raises(EngineParityError, match="tiny's decoder at fp32 does not agree"):
            self.check(tiny, self.unexpected, run=run)("decoder", "fp32", b"")

    def test_layers_are_named(self, tiny: Bundle, tmp_path: Path, fake: Callable[..., Any]) -> None:
        cache = EngineCache(tmp_path)
        asked: list[Any] = []

        def find(path: Path, precision: str, holds: Any, feeds: Any, say: Any) -> tuple[str, ...]:
            asked.extend((path, precision, holds(onnx.load(path)), {name: x.shape for name, x in feeds[0].items()}))
            return ("/blocks.3/Mul", "/norm/Pow")

        bundle = in_halves(tiny)
        with pytest.raises(EngineParityError) as raised:
            engine_cache.prepare(bundle, fake(precision="fp16"), cache=cache, check=self.check(bundle, find))
        assert str(raised.value).startswith("the engine of tiny's encoder at fp16 does not agree with ")
        assert str(raised.value).endswith(
            "it is not kept; it holds where these layers stay in fp32: /blocks.3/Mul, /norm/Pow"
        )
        assert asked == [tiny.onnx_path("encoder"), "fp16", False, {"image": (1, 3, 96, 96)}]
        assert cache.entries() == []

    def test_network_that_agrees_when_converted_again(self, tiny: Bundle) -> None:
        with pytest.raises(EngineParityError, match="not kept; its fp32 file holds when it is converted anew"):
            self.check(in_halves(tiny), lambda *_: ())("encoder", "fp16", b"bad")

    def test_layers_are_found_by_bisection(self, tiny: Bundle, caplog: pytest.LogCaptureFixture) -> None:
        pytest.importorskip("torch", reason="torch is not installed")
        from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeNetwork
        from samg_fast.export.emulate import emulated

        caplog.set_level(logging.INFO, "samg_fast")

        def run(name: str, engine: bytes) -> Network:
            if engine == b"bad":
                return garbage(first_fitting("fp32").open(tiny.path / name))
            content = emulated(onnx.load_from_string(engine)).SerializeToString()
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            return OnnxRuntimeNetwork(session, name)

        check = self.check(in_halves(tiny), find_layers, run=run, build=lambda path, precision: path.read_bytes())
        with pytest.raises(EngineParityError, match="not kept; its fp32 file holds when it is converted anew"):
            check("encoder", "fp16", b"bad")
        assert any("layers in fp32: holds" in each for each in caplog.messages)

    @pytest.mark.parametrize(
        "error",
        [BackendError("it fails in fp32 too"), MissingExtraError("naming the layers that make it fail", "export")],
    )
    def test_why_no_layer_is_named(self, tiny: Bundle, error: Exception) -> None:
        def find(*_: object) -> tuple[str, ...]:
            raise error

        with pytest.raises(EngineParityError) as raised:
            self.check(in_halves(tiny), find)("encoder", "fp16", b"bad")
        assert str(raised.value).endswith(f"it is not kept; {error}")

    def test_no_layers_are_named_at_fp32(self, tiny: Bundle) -> None:
        with pytest.raises(EngineParityError, match=r"it is not kept$"):
            self.check(tiny, self.unexpected)("encoder", "fp32", b"bad")

    def test_without_the_export_extra(self, tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "samg_fast.export.bisection", None)
        with pytest.raises(EngineParityError, match=r"naming the layers .*pip install 'samg-fast\[export\]'"):
            self.check(in_halves(tiny), find_layers)("encoder", "fp16", b"bad")
