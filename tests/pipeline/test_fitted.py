"""Bundles that are fitted to one target: a segmenter that needs no target, on the host and on a GPU."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast import ops
from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeBackend
from samg_fast.bundle import Bundle, FittedManifest, Manifest, write_manifest
from samg_fast.control import Controller
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.parity import record, sample_frames
from samg_fast.wrappers.masking import Masking
from support import fake_cuda
from support.host_gpu import HostBackend, open_on
from support.synthetic_bundle import picture, write_bundle, write_fitted_bundle

BACKENDS = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fitted_bundle(tmp_path_factory.mktemp("fitted"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> samg_fast.Target:
    folder = write_bundle(tmp_path_factory.mktemp("teacher"), shared=True)
    with samg_fast.load(folder, backend="onnxruntime") as segmenter:
        return segmenter.identify(*picture(60, 70))


def slow_walk(folder: Path, frame: Any) -> tuple[Any, float]:
    """Return what the frame gives by operations of its own: letterbox, network, resize."""
    manifest = Bundle.open(folder).fitted
    assert manifest is not None
    image = ops.preprocess(frame[None], [manifest.network])[0]
    found = OnnxRuntimeBackend("fp32", 1).open(folder / manifest.network.file)(image=image)
    height, width = frame.shape[:2]
    masks = ops.resize_logits(
        found["logits"], iou=found["score"], prompt_side=manifest.network.side, height=height, width=width
    )
    return masks.mask[0], float(found["score"][0, 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(60, 70), (48, 48), (31, 90)])
def test_it_needs_no_target(folder: Path, backend: str, size: tuple[int, int]) -> None:
    frame, truth = picture(*size)
    with samg_fast.load(folder, backend=backend, precision="fp32", threads=1) as segmenter:
        assert not segmenter.needs_target
        assert segmenter.target_for(frame, truth) is None
        out = segmenter.segment(frame)
    mask, score = slow_walk(folder, frame)
    np.testing.assert_array_equal(out.mask, mask)
    assert out.score == pytest.approx(score, abs=1e-5)
    assert out.threshold == 0.6
    assert out.present == (score >= 0.6)
    assert (out.mask & truth).sum() > 0.5 * truth.sum()
    rows, columns = np.nonzero(out.mask)
    assert out.box == (columns.min(), rows.min(), columns.max(), rows.max())
    assert out.trace is None
    assert {name for name, ms in out.timings.items() if ms} == {"preprocess", "encoder", "resize", "total"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_is_its_frames(folder: Path, backend: str) -> None:
    frames = np.stack([picture(40, 50, seed)[0] for seed in range(5)])
    with samg_fast.load(folder, backend=backend, precision="fp32", threads=1) as segmenter:
        together = segmenter.segment_batch(frames)
        for frame, found in zip(frames, together, strict=True):
            alone = segmenter.segment(frame)
            np.testing.assert_array_equal(found.mask, alone.mask)
            assert found.score == pytest.approx(alone.score, abs=1e-6)
            np.testing.assert_array_equal(found.frame, frame)


def test_a_fixed_batch(folder: Path, tmp_path: Path) -> None:
    frames = np.stack([picture(40, 50, seed)[0] for seed in range(5)])
    with samg_fast.load(folder, backend="onnxruntime") as any_batch:
        wanted = any_batch.segment_batch(frames)
    with samg_fast.load(write_fitted_bundle(tmp_path, batch=3), backend="onnxruntime") as segmenter:
        for found, expected in zip(segmenter.segment_batch(frames), wanted, strict=True):
            np.testing.assert_array_equal(found.mask, expected.mask)


def test_its_own_target_is_accepted_and_no_other(tmp_path: Path, target: samg_fast.Target) -> None:
    frame, _ = picture(40, 50)
    other = replace(target, mask_weights=np.float32([1, 0, 0]))
    with samg_fast.load(write_fitted_bundle(tmp_path, target=target.digest), backend="onnxruntime") as segmenter:
        np.testing.assert_array_equal(segmenter.segment(frame, target).mask, segmenter.segment(frame).mask)
        segmenter.segment_batch(frame[None], [target])
        with pytest.raises(BundleError, match="another one than bundle fitted is fitted to: leave it out"):
            segmenter.segment(frame, other)
        with pytest.raises(BundleError, match=r"target\[1\] is another one"):
            segmenter.segment_batch(np.stack([frame, frame]), [target, other])
        with pytest.raises(InputTypeError, match=r"target must be a samg_fast\.Target, not str"):
            segmenter.segment(frame, "walker")  # type: ignore[call-overload]


def test_a_digest_is_that_of_the_file(tmp_path: Path, target: samg_fast.Target) -> None:
    target.save(tmp_path / "target.safetensors")
    assert samg_fast.Target.load(tmp_path / "target.safetensors").digest == target.digest
    assert target.digest.encode() in (tmp_path / "target.safetensors").read_bytes()


def test_fitted_to_masks_alone_it_has_no_target(folder: Path, target: samg_fast.Target) -> None:
    with (
        samg_fast.load(folder, backend="onnxruntime") as segmenter,
        pytest.raises(BundleError, match="another one than bundle fitted is fitted to"),
    ):
        segmenter.segment(picture(40, 50)[0], target)


def test_it_cannot_be_shown_a_target(folder: Path, target: samg_fast.Target) -> None:
    frame, mask = picture(40, 50)
    refused = pytest.raises(BundleError, match="bundle fitted is fitted to one target: it finds that one")
    with samg_fast.load(folder, backend="onnxruntime") as segmenter:
        with refused:
            segmenter.identify(frame, mask)
        with refused:
            segmenter.adapt(target, frame, mask)
        with refused:
            segmenter.segment(frame, trace=True)


def test_a_prompted_bundle_still_needs_a_target(tmp_path: Path) -> None:
    frame, _ = picture(40, 50)
    with samg_fast.load(write_bundle(tmp_path, shared=True), backend="onnxruntime") as segmenter:
        assert segmenter.needs_target
        with pytest.raises(InputTypeError, match=r"target must be a samg_fast\.Target, not NoneType"):
            segmenter.segment(frame)
        with pytest.raises(InputTypeError, match="target must be a Target or a sequence of them, not NoneType"):
            segmenter.segment_batch(frame[None])


def test_copies(folder: Path) -> None:
    frame, _ = picture(40, 50)
    with samg_fast.load(folder, backend="onnxruntime") as segmenter:
        wanted = segmenter.segment(frame).mask
        assert copy.deepcopy(segmenter) is segmenter
        with pickle.loads(pickle.dumps(segmenter)) as again:
            np.testing.assert_array_equal(again.segment(frame).mask, wanted)


class TestOnAGpu:
    @pytest.mark.parametrize("capturable", [True, False])
    def test_the_same_masks(self, folder: Path, capturable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        frames = np.stack([picture(50, 70, seed)[0] for seed in range(3)])
        with samg_fast.load(folder, backend="onnxruntime", threads=1, device="cpu") as plain:
            wanted = [plain.segment(frame) for frame in frames]
        machine = fake_cuda.install(monkeypatch, samg_fast._engine, launch=1)  # type: ignore[attr-defined]
        with open_on(folder, HostBackend(machine, capturable=capturable)) as segmenter:
            for _ in range(3):  # step by step, captured, replayed
                for frame, expected in zip(frames, wanted, strict=True):
                    out = segmenter.segment(frame)
                    np.testing.assert_array_equal(out.mask, expected.mask)
                    assert out.score == pytest.approx(expected.score, abs=1e-6)
                    assert out.box == expected.box
            together = segmenter.segment_batch(frames)
            for found, expected in zip(together, wanted, strict=True):
                np.testing.assert_array_equal(found.mask, expected.mask)


class TestManifest:
    def test_there_and_back(self, folder: Path) -> None:
        manifest = Bundle.open(folder).manifest
        assert isinstance(manifest, FittedManifest)
        assert manifest.graphs == manifest.roles == ("network",)
        assert Manifest.from_dict(manifest.to_dict()) == manifest
        assert "target" not in manifest.to_dict()

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"target": "walker"}, "target is 'walker', expected 64 lower-case hexadecimal digits"),
            ({"accuracy": {"network": 2}}, r"accuracy\.network is 2, expected a number from 0 to 1"),
            ({"accuracy": 3}, "accuracy is 3, expected an object"),
            ({"prompt_side": 3}, "unknown key prompt_side"),
            ({"network": {}}, "missing keys network.file"),
        ],
    )
    def test_what_is_wrong_is_named(self, folder: Path, changed: dict[str, Any], words: str) -> None:
        values = Bundle.open(folder).manifest.to_dict()
        with pytest.raises(BundleError, match=words):
            Manifest.from_dict({**values, **changed})

    def test_its_network_is_checked(self, folder: Path, tmp_path: Path) -> None:
        bundle = Bundle.open(write_fitted_bundle(tmp_path))
        assert bundle.fitted is not None
        network = replace(bundle.fitted.network, side=64)
        write_manifest(tmp_path, replace(bundle.fitted, network=network))
        with pytest.raises((BundleError, samg_fast.BackendError), match="invalid dimensions"):
            samg_fast.load(tmp_path, backend="onnxruntime")

    def test_a_fingerprint_is_that_of_the_network(self, folder: Path, tmp_path: Path) -> None:
        assert Bundle.open(folder).fingerprint == Bundle.open(write_fitted_bundle(tmp_path)).fingerprint
        other = write_fitted_bundle(tmp_path / "other", side=52)
        assert Bundle.open(folder).fingerprint != Bundle.open(other).fingerprint


class TestWhereSegmentersGo:
    def test_masking(self, folder: Path, target: samg_fast.Target) -> None:
        frames = np.stack([picture(40, 50, seed)[0] for seed in range(2)])
        options: Any = {"count": 2, "mode": "mask", "threshold": None, "lost": "empty"}
        with samg_fast.load(folder, backend="onnxruntime") as segmenter:
            masking = Masking(segmenter, None, None, **options)
            masks = masking(frames)
            for frame, mask in zip(frames, masks, strict=True):
                np.testing.assert_array_equal(mask[..., 0] > 0, segmenter.segment(frame).mask)
            assert masking.targets == []
            with pytest.raises(InputError, match="bundle fitted is fitted to its target, and needs none"):
                Masking(segmenter, None, picture(40, 50), **options)
            with pytest.raises(BundleError, match="another one than bundle fitted"):
                Masking(segmenter, target, None, **options)

    def test_control(self, folder: Path) -> None:
        frame, _ = picture(40, 50)
        with samg_fast.load(folder, backend="onnxruntime") as segmenter, Controller(segmenter, hz=100) as controller:
            controller.offer(frame)
            newest = controller.newest(wait=5)
            assert newest is not None
            np.testing.assert_array_equal(newest.segmentation.mask, segmenter.segment(frame).mask)

    def test_parity(self, folder: Path) -> None:
        """As engines are checked: every call is recorded."""
        bundle, backend = Bundle.open(folder), OnnxRuntimeBackend("fp32", 1)
        networks: Any = {"network": backend.open(folder / "network.onnx")}
        found, runs = record(bundle, "onnxruntime", networks, sample_frames(tasks=1))
        assert len(found) == len(runs["network"]) > 1
        assert runs["network"][0][1].keys() == {"logits", "score"}
