"""The segmenter: identify, batches, threads, and a clear sentence for every kind of bad input."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast import Segmenter, Target
from samg_fast.backends import first_fitting, open_networks
from samg_fast.bundle import MANIFEST, Bundle, sha256_of, write_manifest
from samg_fast.errors import BackendError, BundleError, InputError, InputTypeError
from support.slow_walk import SlowWalk
from support.synthetic_bundle import picture

FRAME, MASK = picture(84, 84)


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def test_identify(segmenter: Segmenter) -> None:
    pytest.importorskip("onnxruntime")
    part = MASK & (np.arange(84) > 40)
    rows, columns = np.nonzero(MASK)
    point = (float(columns[50]), float(rows[50]))
    target = segmenter.identify(FRAME, MASK, points=[point, (0, 0)], parts=[part])
    spec = segmenter.bundle.manifest.encoder
    maps = SlowWalk(segmenter.bundle.path).maps(FRAME)
    for dense, whole, parts in zip(maps, (target.sam, target.dino), (target.parts_sam, target.parts_dino), strict=True):
        for mask, got in ((MASK, whole), (part, parts[0])):
            cells = samg_fast.ops.mask_cells(mask, side=spec.side, grid=spec.grid)
            inside = dense[:, cells]
            np.testing.assert_allclose(got, unit(inside.max(1) + inside.mean(1)), atol=1e-5)
        u, v = point[0] / 84 * spec.grid, point[1] / 84 * spec.grid
        x, y = int(u), int(v)
        above = dense[:, y, x] * (x + 1 - u) + dense[:, y, x + 1] * (u - x)
        below = dense[:, y + 1, x] * (x + 1 - u) + dense[:, y + 1, x + 1] * (u - x)
        np.testing.assert_allclose(parts[1], unit(above * (y + 1 - v) + below * (v - y)), atol=1e-5)
        np.testing.assert_allclose(parts[2], unit(dense[:, 0, 0]), atol=1e-5)
    assert target.part_is_point.tolist() == [False, True, True]
    assert target.mask_weights.tolist() == pytest.approx([1 / 3] * 3)
    assert target.bundle == segmenter.bundle.name
    assert target.fingerprint == segmenter.bundle.fingerprint


def with_threshold(folder: Path, copy: Path, threshold: float) -> Path:
    """Copy a bundle, with a score from which a target counts as present."""
    shutil.copytree(folder, copy)
    write_manifest(copy, replace(Bundle.open(copy).manifest, present=threshold))
    return copy


def test_present_is_a_score_that_reaches_the_bundles_threshold(bundle_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with samg_fast.load(bundle_folder, backend="onnxruntime") as segmenter:
        target = segmenter.identify(FRAME, MASK)
        found = segmenter.segment(FRAME, target)
    assert found.mask.any()
    assert found.present  # no threshold: what is not empty is there
    assert not replace(found, mask=np.zeros_like(found.mask), box=None).present
    for name, threshold, present in (("below", found.score - 0.01, True), ("above", found.score + 0.01, False)):
        folder = with_threshold(bundle_folder, tmp_path / name, threshold)
        with samg_fast.load(folder, backend="onnxruntime") as segmenter:
            for each in (segmenter.segment(FRAME, target), *segmenter.segment_batch(np.stack([FRAME] * 2), target)):
                assert (each.present, each.threshold) == (present, threshold)
                assert not replace(each, mask=np.zeros_like(each.mask), box=None).present


def test_identify_masked_picture(one_segmenter: Segmenter) -> None:
    """A masked picture that is red all over the target reads as the mask does, up to the edge's cells."""
    masked = np.zeros((64, 64, 3), np.uint8)
    masked[16:32, 32:48] = 255
    mask = masked[..., 0] > 0
    frame, _ = picture(64, 64)
    read = one_segmenter.identify_masked_picture(frame, masked, points=[(40, 20)], part_pictures=[masked])
    assert read.part_is_point.tolist() == [False, True]
    assert (read.parts_sam[0] == read.sam).all()
    direct = one_segmenter.identify(frame, mask)
    np.testing.assert_allclose(read.sam, direct.sam, atol=1e-6)


def test_wide_frames_points_lie_where_they_were_put(one_segmenter: Segmenter) -> None:
    """In a letterboxed frame, a point's feature comes from the cells under the point."""
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[8:16, 40:48] = 255
    target = one_segmenter.identify(frame, frame[..., 0] > 0, points=[(40, 8), (10, 20)])
    other = one_segmenter.identify(frame, frame[..., 0] > 0, points=[(60, 4)])
    assert (target.parts_sam[0] @ target.parts_sam[1]) < 0.9  # the bright cell and a dark one
    np.testing.assert_allclose(target.parts_sam[1], other.parts_sam[0], atol=1e-6)  # two dark ones


def test_narrow_frame(one_segmenter: Segmenter) -> None:
    narrow = np.zeros((1, 900, 3), np.uint8)
    with pytest.raises(InputError, match="a picture of 1 rows and 900 columns is too narrow"):
        one_segmenter.segment(narrow, one_segmenter.identify(FRAME, MASK))
    with pytest.raises(InputError, match="a picture of 1 rows and 900 columns is too narrow"):
        one_segmenter.identify(narrow, np.ones((1, 900), bool))


def test_saved_target_gives_the_same(one_segmenter: Segmenter, tmp_path: Path) -> None:
    target = one_segmenter.identify(FRAME, MASK, points=[(40, 40)])
    target.save(tmp_path / "t.safetensors")
    again = Target.load(tmp_path / "t.safetensors")
    assert (one_segmenter.segment(FRAME, target).mask == one_segmenter.segment(FRAME, again).mask).all()


def test_batch_is_frame_by_frame(segmenter: Segmenter) -> None:
    frames = np.stack([picture(40, 60, seed)[0] for seed in range(3)])
    reference, mask = picture(40, 60)
    plain = segmenter.identify(reference, mask)
    parts = segmenter.identify(reference, mask, points=[(20, 20), (30, 15)])
    for targets in (plain, [plain, parts, plain]):
        batch = segmenter.segment_batch(frames, targets)
        assert len(batch) == 3
        for index, out in enumerate(batch):
            alone = segmenter.segment(frames[index], targets if isinstance(targets, Target) else targets[index])
            # Another batch size may sum in another order: logits differ by 1e-5, so only pixels at their edge may.
            assert (out.mask != alone.mask).mean() < 1e-3
            assert out.score == pytest.approx(alone.score, abs=1e-4)
            assert (out.frame == frames[index]).all()


def test_threads_agree(one_segmenter: Segmenter) -> None:
    target = one_segmenter.identify(FRAME, MASK)
    frames = [picture(84, 84, seed)[0] for seed in range(4)]
    wanted = [one_segmenter.segment(frame, target) for frame in frames]
    wrong: list[int] = []

    def work(index: int) -> None:
        for turn in range(12):
            at = (index + turn) % len(frames)
            out = one_segmenter.segment(frames[at], target)
            if (out.mask != wanted[at].mask).any() or out.score != wanted[at].score:
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_backends_agree(bundle_folder: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    masks = []
    for backend in ("openvino", "onnxruntime"):
        with samg_fast.load(bundle_folder, backend=backend) as segmenter:
            masks.append(segmenter.segment(picture(84, 84, 2)[0], segmenter.identify(FRAME, MASK)).mask)
    assert (masks[0] != masks[1]).mean() < 1e-3


def test_bf16(bundle_folder: Path) -> None:
    status = {status.name: status for status in samg_fast.backends.probe()}["openvino"]
    if "bf16" not in status.precisions:
        pytest.skip("OpenVINO has no bfloat16 on this processor")
    with samg_fast.load(bundle_folder, backend="openvino", precision="bf16") as segmenter:
        assert segmenter.precision == "bf16"
        assert segmenter.segment(FRAME, segmenter.identify(FRAME, MASK)).mask.shape == (84, 84)


def test_says_what_it_is(bundle_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("onnxruntime")
    with caplog.at_level(logging.INFO, "samg_fast"):
        segmenter = samg_fast.load(bundle_folder, backend="onnxruntime", threads=2)
    assert segmenter.describe() in caplog.text
    assert segmenter.describe() in repr(segmenter)
    assert "synthetic" in segmenter.describe()
    assert (segmenter.backend, segmenter.precision, segmenter.threads) == ("onnxruntime", "fp32", 2)
    assert segmenter.bundle.name == "synthetic"


def test_closed(bundle_folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    with samg_fast.load(bundle_folder, backend="onnxruntime") as segmenter:
        target = segmenter.identify(FRAME, MASK)
    segmenter.close()
    with pytest.raises(BackendError, match="this segmenter is closed"):
        segmenter.segment(FRAME, target)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (FRAME[..., 0], InputError, r"frame must be a \(H, W, 3\) uint8 RGB array, not uint8 of shape \(84, 84\)"),
        (FRAME / 255, InputTypeError, r"frame must be .*uint8 .*0\.\.255, not float64 of shape \(84, 84, 3\)"),
        (FRAME[None], InputError, r"frame must be .*not uint8 of shape \(1, 84, 84, 3\)"),
        (FRAME.transpose(2, 0, 1), InputError, "frame must be"),
        (FRAME[:0], InputError, r"frame must have at least one pixel, not shape \(0, 84, 3\)"),
        ("walker.png", InputTypeError, "frame must be .*not 'walker.png'"),
        (None, InputTypeError, "frame must be .*not None"),
    ],
)
def test_bad_frame(one_segmenter: Segmenter, frame: Any, error: type[Exception], message: str) -> None:
    target = one_segmenter.identify(FRAME, MASK)
    with pytest.raises(error, match=message):
        one_segmenter.segment(frame, target)
    with pytest.raises(error, match=message.replace("frame", "image")):
        one_segmenter.identify(frame, MASK)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (MASK[:40], InputError, r"mask must have the picture's size \(84, 84\), not shape \(40, 84\)"),
        (MASK[..., None], InputError, r"mask must have .*\(84, 84, 1\)"),
        (MASK.astype(np.uint8), InputTypeError, r"mask must be a \(H, W\) bool array, not uint8 .*`> 0`"),
        (np.zeros((84, 84), bool), InputError, "mask is empty: at least one pixel must be set"),
    ],
)
def test_bad_mask(one_segmenter: Segmenter, mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        one_segmenter.identify(FRAME, mask)
    with pytest.raises(error, match=message.replace("mask", r"parts\[1\]", 1)):
        one_segmenter.identify(FRAME, MASK, parts=[MASK, mask])
    with pytest.raises(error, match=message):
        one_segmenter.adapt(one_segmenter.identify(FRAME, MASK), FRAME, mask)


def test_mask_without_a_cell(one_segmenter: Segmenter) -> None:
    frame, _ = picture(200, 200)
    speck = np.zeros((200, 200), bool)
    speck[0, 0] = True
    with pytest.raises(InputError, match="mask reaches no grid cell: it is too small for the encoder's 16 x 16 grid"):
        one_segmenter.identify(frame, speck)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        ([(84, 3)], InputError, r"points has \(84, 3\), .*expected 0 <= x <= 83 and 0 <= y <= 83"),
        ([(3, 4), (-1, 3)], InputError, r"points has \(-1, 3\)"),
        ([(np.nan, 3)], InputError, r"points has \(nan, 3\), which is not a point of the picture"),
        ([(1, np.inf)], InputError, r"points has \(1, inf\)"),
        ([(1, 2, 3)], InputError, r"points must be .*of shape \(n, 2\), not \(1, 3\)"),
        ((40, 24), InputError, r"points must be .*of shape \(n, 2\), not \(2,\)"),
        ([(1, 2), (3,)], InputError, "points must be .*rows of different lengths"),
        ([("a", "b")], InputTypeError, "points must be a sequence of .* of numbers"),
    ],
)
def test_bad_points(one_segmenter: Segmenter, points: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        one_segmenter.identify(FRAME, MASK, points=points)


def test_too_many_parts(one_segmenter: Segmenter) -> None:
    assert one_segmenter.identify(FRAME, MASK, points=[(40, 40)] * 4, parts=[MASK] * 2).parts == 6
    with pytest.raises(InputError, match="points and parts are 7 together, but bundle synthetic has slots for 6"):
        one_segmenter.identify(FRAME, MASK, points=[(40, 40)] * 4, parts=[MASK] * 3)
    target = one_segmenter.identify(FRAME, MASK)
    channels = len(target.sam), len(target.dino)
    crowded = replace(
        target,
        parts_sam=np.ones((7, channels[0]), np.float32),
        parts_dino=np.ones((7, channels[1]), np.float32),
        part_is_point=np.zeros(7, bool),
    )
    with pytest.raises(InputError, match="target has 7 parts, but bundle synthetic has slots for 6"):
        one_segmenter.segment(FRAME, crowded)


def test_bad_masked_picture(one_segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match=r"masked_picture must have the picture's shape \(84, 84, 3\), not \(40"):
        one_segmenter.identify_masked_picture(FRAME, FRAME[:40])
    with pytest.raises(InputError, match=r"part_pictures\[0\] must have"):
        one_segmenter.identify_masked_picture(FRAME, FRAME, part_pictures=[FRAME[:40]])
    with pytest.raises(InputTypeError, match=r"masked_picture must be .* not bool"):
        one_segmenter.identify_masked_picture(FRAME, np.stack([MASK] * 3, -1))
    blue = np.zeros_like(FRAME)
    blue[..., 2] = 255
    with pytest.raises(InputError, match="masked_picture reaches no grid cell: it has nowhere more red than 124"):
        one_segmenter.identify_masked_picture(FRAME, blue)


@pytest.mark.parametrize("parts", [None, 3])
def test_parts_that_are_no_sequence(one_segmenter: Segmenter, parts: Any) -> None:
    with pytest.raises(InputTypeError, match=f"parts must be a sequence of arrays, not {parts}"):
        one_segmenter.identify(FRAME, MASK, parts=parts)
    with pytest.raises(InputTypeError, match=f"part_pictures must be a sequence of arrays, not {parts}"):
        one_segmenter.identify_masked_picture(FRAME, FRAME, part_pictures=parts)


def test_target_of_another_bundle(one_segmenter: Segmenter, shared_folder: Path) -> None:
    with samg_fast.load(shared_folder, backend=one_segmenter.backend) as other:
        target = other.identify(FRAME, MASK)
    message = "target was made with bundle synthetic-shared, this segmenter runs synthetic: identify it again"
    with pytest.raises(BundleError, match=message):
        one_segmenter.segment(FRAME, target)
    with pytest.raises(BundleError, match=message):
        one_segmenter.adapt(target, FRAME, MASK)
    retrained = replace(one_segmenter.identify(FRAME, MASK), fingerprint="0" * 64)
    with pytest.raises(BundleError, match="another version of bundle synthetic"):
        one_segmenter.segment(FRAME, retrained)


def test_no_target(one_segmenter: Segmenter) -> None:
    with pytest.raises(InputTypeError, match=r"target must be a samg_fast\.Target, not str"):
        one_segmenter.segment(FRAME, "walker.safetensors")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="target must be a Target or a sequence of them, not int"):
        one_segmenter.segment_batch(FRAME[None], 3)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"target\[1\] must be a samg_fast.Target, not None"):
        one_segmenter.segment_batch(np.stack([FRAME] * 2), [one_segmenter.identify(FRAME, MASK), None])  # type: ignore[list-item]


def test_bad_batch(one_segmenter: Segmenter) -> None:
    target = one_segmenter.identify(FRAME, MASK)
    with pytest.raises(InputError, match=r"frames must be a \(B, H, W, 3\) uint8 RGB array, not uint8 of shape"):
        one_segmenter.segment_batch(FRAME, target)
    with pytest.raises(InputError, match=r"target must be one Target or 1 of them, one for each frame, not 2"):
        one_segmenter.segment_batch(FRAME[None], [target, target])
    with pytest.raises(InputError, match="frames must have at least one pixel"):
        one_segmenter.segment_batch(FRAME[None][:0], target)


def test_bad_bundle_argument() -> None:
    with pytest.raises(InputTypeError, match="bundle must be a name or a folder, not int"):
        samg_fast.load(3)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="there is no bundle 'nonsense'"):
        samg_fast.load("nonsense")


def rename_output(values: dict[str, Any]) -> None:
    values["encoder"]["output"] = "embeddings"


def other_channels(values: dict[str, Any]) -> None:
    values["features"]["channels"] = 12


def few_slots(values: dict[str, Any]) -> None:
    values["slots"] = 5


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (rename_output, "a network has no output named 'embeddings'"),
        (other_channels, r"the features's features has shape \(1, 11, 4, 4\), expected \(1, 12, 4, 4\)"),
        (few_slots, "it has 5 slots, and a target without parts needs 6"),
    ],
)
def test_networks_that_are_not_what_the_manifest_says(
    bundle_folder: Path, tmp_path: Path, backend: str, lie: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "lie")
    values = json.loads((folder / MANIFEST).read_text())
    lie(values)
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BundleError, match=f"bundle synthetic is not what its manifest says: {message}"):
        samg_fast.load(folder, backend=backend)


def test_an_onnx_file_that_is_none(bundle_folder: Path, tmp_path: Path, backend: str) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "none")
    (folder / "decoder.onnx").write_bytes(b"\x00" * 100)
    values = json.loads((folder / MANIFEST).read_text())
    values["decoder"]["sha256"] = sha256_of(folder / "decoder.onnx")
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BackendError, match=rf"{backend} cannot (read|run) decoder\.onnx"):
        samg_fast.load(folder, backend=backend)


def test_altered_bundle(bundle_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "altered")
    path = folder / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"encoder\.onnx is truncated or altered"):
        samg_fast.load(folder)


def test_int8_files_are_used(bundle_folder: Path, tmp_path: Path, backend: str) -> None:
    """A precision's own file replaces the default one; the synthetic "int8" decoder is another float one."""
    from support.synthetic_bundle import write_decoder

    folder = shutil.copytree(bundle_folder, tmp_path / "int8")
    manifest = Bundle.open(folder).manifest
    spec = manifest.encoder
    write_decoder(folder / "decoder-int8.onnx", spec.channels, spec.grid, manifest.prompt_side, manifest.slots, seed=9)
    values = manifest.to_dict()
    values["precisions"] = ["fp32", "int8"]
    values["precision_files"] = {
        "int8": {"decoder": {"file": "decoder-int8.onnx", "sha256": sha256_of(folder / "decoder-int8.onnx")}}
    }
    (folder / MANIFEST).write_text(json.dumps(values))
    with (
        samg_fast.load(folder, backend=backend) as full,
        samg_fast.load(folder, backend=backend, precision="int8") as small,
    ):
        target = full.identify(FRAME, MASK)  # good for both: the fingerprint is the same
        assert full.segment(FRAME, target).score != small.segment(FRAME, target).score


@pytest.mark.parametrize("size", [(3000, 4000), (2160, 3840)])
def test_a_photograph_and_a_video_frame(one_segmenter: Segmenter, size: tuple[int, int]) -> None:
    """Frames of any size go through identify, points and parts included, and through segment."""
    image, mask = picture(*size)
    rows, columns = np.nonzero(mask)
    middle = len(rows) // 2
    target = one_segmenter.identify(image, mask, points=[(columns[middle], rows[middle])], parts=[mask])
    out = one_segmenter.segment(image, target)
    assert out.mask.shape == size
    assert out.masked.shape == image.shape


@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_tensors_that_hold_no_image(one_segmenter: Segmenter, kind: str) -> None:
    torch = pytest.importorskip("torch")
    target = one_segmenter.identify(FRAME, MASK)
    whole = torch.from_numpy(FRAME.copy())
    frame = torch.empty_like(whole, device="meta") if kind == "meta" else whole.to_sparse()
    with pytest.raises(
        InputTypeError, match=r"frame must be a \(H, W, 3\) uint8 array, and this Tensor gives no array: "
    ):
        one_segmenter.segment(frame, target)


@pytest.mark.parametrize(("role", "output"), [("encoder", "embedding"), ("features", "features"), ("decoder", "iou")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_gives_nan_is_named(bundle_folder: Path, role: str, output: str, value: float) -> None:
    """It would come out as a mask that looks sound: half precision overflows so."""
    bundle = Bundle.open(bundle_folder)
    networks: Any = open_networks(bundle, first_fitting("fp32"))
    whole, spoilt = networks[role], []

    def network(**inputs: Any) -> Any:
        outputs = {name: array.copy() for name, array in whole(**inputs).items()}
        if spoilt:
            outputs[output].reshape(-1)[-1] = value
        return outputs

    with Segmenter(bundle, first_fitting("fp32"), {**networks, role: network}) as segmenter:
        target = segmenter.identify(FRAME, MASK)
        spoilt.append(True)
        for use in (
            lambda: segmenter.segment(FRAME, target),
            lambda: segmenter.segment_batch(FRAME[None], target),
            *([lambda: segmenter.identify(FRAME, MASK)] if role != "decoder" else []),
            lambda: segmenter.adapt(target, FRAME, MASK),
        ):
            with pytest.raises(BackendError, match=f"bundle synthetic's {role} gave NaN or infinity: load it with"):
                use()
