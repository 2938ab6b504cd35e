"""The example client runs whole frames over gRPC, against a server that is as strict as Triton."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast.bundle import Bundle
from samg_fast.bundle.zoo import resolve
from samg_fast.errors import BackendError
from support.fixed_batch import fixed_batch
from support.paths import ROOT
from support.synthetic_bundle import picture

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime, which the server runs, is not installed")

from samg_fast.serving.repository import write_repository
from support.triton_server import serving


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.open(bundle_folder)


@pytest.fixture
def shared(shared_folder: Path) -> Bundle:
    return Bundle.open(shared_folder)


@pytest.fixture(scope="module")
def client() -> ModuleType:
    """Load the example as the module it is."""
    spec = importlib.util.spec_from_file_location("triton_client", ROOT / "examples" / "triton_client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(client: ModuleType, bundle: Bundle, url: str) -> samg_fast.Segmenter:
    """Open a bundle on the server."""
    server = client.TritonServer(bundle, url)
    return samg_fast.Segmenter(bundle, server, server.networks)


@pytest.fixture(params=["open", "fixed", "shared"])
def served(
    request: pytest.FixtureRequest, bundle: Bundle, shared: Bundle, tmp_path: Path
) -> Iterator[tuple[Bundle, str, Any]]:
    kinds = {"open": bundle, "shared": shared}
    served = kinds.get(request.param) or fixed_batch(bundle, tmp_path / "fixed", 2)
    write_repository(served, tmp_path / "models", most=None if request.param == "fixed" else 4)
    with serving(tmp_path / "models") as (url, service):
        yield served, url, service


def test_a_frame_is_what_it_is_here(client: ModuleType, served: tuple[Bundle, str, Any]) -> None:
    bundle, url, service = served
    frame, mask = picture(72, 60)
    frames = np.stack([frame, picture(72, 60, seed=1)[0], picture(72, 60, seed=2)[0]])
    with samg_fast.load(bundle.path, backend="onnxruntime", threads=1) as here:
        target = here.identify(frame, mask, points=[(30, 36)])
        wanted = [here.segment(frame, target), *here.segment_batch(frames, target)]
    with opened(client, bundle, url) as there:
        assert "triton 2.0, fp32" in there.describe()
        target = there.identify(frame, mask, points=[(30, 36)])
        found = [there.segment(frame, target), *there.segment_batch(frames, target)]
    for one, other in zip(found, wanted, strict=True):
        assert one.mask.any()
        assert np.array_equal(one.mask, other.mask)
        assert one.score == pytest.approx(other.score, abs=1e-5)
    assert set(service.asked) == set(service.models)


def test_threads_may_share_it(client: ModuleType, bundle: Bundle, tmp_path: Path) -> None:
    frame, mask = picture(72, 60)
    frames = [frame, *(picture(72, 60, seed=seed)[0] for seed in range(1, 8))]
    write_repository(bundle, tmp_path / "models")
    with serving(tmp_path / "models") as (url, _), ThreadPoolExecutor(3) as pool:
        segmenter = opened(client, bundle, url)
        target = segmenter.identify(frame, mask)
        together = list(pool.map(lambda each: segmenter.segment(each, target).mask, frames))
        assert np.array_equal(together, [segmenter.segment(each, target).mask for each in frames])


def test_more_than_the_most_is_the_servers_refusal(client: ModuleType, bundle: Bundle, tmp_path: Path) -> None:
    frame, mask = picture(72, 60)
    write_repository(bundle, tmp_path / "models", most=2)
    with serving(tmp_path / "models") as (url, _):
        segmenter = opened(client, bundle, url)
        target = segmenter.identify(frame, mask)
        with pytest.raises(BackendError, match=r"refused infer at .*: inference request batch-size must be <= 2"):
            segmenter.segment_batch(np.stack([frame] * 3), target)


def test_another_bundle_on_the_server_is_refused(
    client: ModuleType, bundle: Bundle, shared: Bundle, tmp_path: Path
) -> None:
    write_repository(shared, tmp_path / "models")
    same_name = Bundle(bundle.path, replace(bundle.manifest, name=shared.name))
    with serving(tmp_path / "models") as (url, _):
        with pytest.raises(BackendError, match="synthetic-shared_encoder is of another bundle than the encoder here"):
            client.TritonServer(same_name, url)
        with pytest.raises(BackendError, match=r"refused get_model_config at .*synthetic_encoder"):
            client.TritonServer(bundle, url)


def test_no_server_is_one_sentence(client: ModuleType, bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="no Triton server answers get_server_metadata at"):
        client.TritonServer(bundle, "127.0.0.1:9")


def test_the_example_runs(
    client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_repository(Bundle.open(resolve("tiny")), tmp_path / "models")
    with serving(tmp_path / "models") as (url, _):
        monkeypatch.setattr(sys, "argv", ["triton_client.py", "--url", url])
        client.main()
    printed = capsys.readouterr().out
    assert "bundle tiny on triton 2.0, fp32" in printed
    assert printed.count("IoU") == 8
