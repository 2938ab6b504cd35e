"""Whole exports of small models that have the official structure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="exporting needs the extra export")

from typer.testing import CliRunner

import samg_fast
from samg_fast.bundle import ROLES, Bundle
from samg_fast.cli import app
from samg_fast.errors import BundleError, CheckpointError, InputError, InputTypeError
from samg_fast.export import add_precisions, export_bundle, graph, variants
from samg_fast.export import bundle as export_module
from samg_fast.export.graph import SHAPE_ARITHMETIC
from samg_fast.parity import THRESHOLDS
from support.naive_half import naive_half
from support.once import once
from support.synthetic_bundle import picture
from support.toy_models import DINO_SIDE

Export = Callable[..., Any]


@pytest.fixture(scope="session")
def export(sam_checkpoint: Path, dino_checkpoint: Path, quick_exports: None) -> Export:
    """Return a function that exports the toy models."""

    def run(out: Path, **options: Any) -> Any:
        return export_bundle("toy", sam_checkpoint, "toy", dino_checkpoint, out, dino_side=DINO_SIDE, **options)

    return run


@pytest.fixture(scope="session")
def every_precision(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export once at every precision."""
    return once(tmp_path_factory, "toy", lambda folder: export(folder, precision="fp16,bf16,int8"))


@pytest.fixture(scope="session")
def batches(export: Export, every_precision: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Export with a fixed batch of one, a dynamic batch, and a fixed batch of two."""
    reports = [
        every_precision,
        once(tmp_path_factory, "toy-open", lambda folder: export(folder, batch=None)),
        once(tmp_path_factory, "toy-two", lambda folder: export(folder, batch=2)),
    ]
    return [report.path for report in reports]


def nodes(bundle: Bundle, role: Any, precision: str = "fp32") -> set[str]:
    model = onnx.load(bundle.onnx_path(role, precision))
    onnx.checker.check_model(model, full_check=True)
    return {node.op_type for node in model.graph.node}


def test_the_bundle(every_precision: Any) -> None:
    bundle = Bundle.open(every_precision.path)
    manifest = bundle.manifest
    assert manifest.name == "toy-toy"
    assert (manifest.encoder.side, manifest.encoder.grid, manifest.features.side, manifest.features.grid) == (
        512,
        64,
        112,
        8,
    )
    assert (manifest.prompt_side, manifest.slots, manifest.batch) == (1024, 16, 1)
    assert manifest.license == "Apache-2.0"
    assert "toy_sam.pt (SHA-256 " in manifest.source
    assert manifest.opset >= 17
    for role in ROLES:
        kinds = nodes(bundle, role)
        assert not kinds & SHAPE_ARITHMETIC
        assert "LayerNormalization" in kinds
        model = onnx.load(bundle.onnx_path(role))
        assert next(each.version for each in model.opset_import if not each.domain) == manifest.opset
        for value in [*model.graph.input, *model.graph.output]:
            assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)


def test_the_report(every_precision: Any) -> None:
    rows = {(each.precision, each.role, each.output): each for each in every_precision.outputs}
    for role, output in (("encoder", "embedding"), ("features", "features"), ("decoder", "low_res_masks")):
        assert rows["fp32", role, output].holds
        assert 0 < rows["fp32", role, output].largest <= THRESHOLDS["fp32"][role].error
    assert rows["fp16", "encoder", "embedding"].largest > rows["fp32", "encoder", "embedding"].largest
    assert rows["int8", "encoder", "embedding"].cosine < rows["fp16", "encoder", "embedding"].cosine
    frames = {each.precision: each for each in every_precision.frames}
    assert frames["fp32"].frames == 4
    assert frames["fp32"].moved == 0
    assert frames["fp32"].first_iou >= 0.995
    assert any("int8: the decoder stays in fp32" in note for note in every_precision.notes)
    json.dumps(every_precision.to_dict(), allow_nan=False)


def test_half_precision_is_in_the_types(every_precision: Any) -> None:
    bundle = Bundle.open(every_precision.path)
    for precision, kind in (("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)):
        for role in ("encoder", "features"):
            model = onnx.load(bundle.onnx_path(role, precision))  # type: ignore[arg-type]
            weights = {tensor.name: tensor for tensor in model.graph.initializer}
            halves = [tensor for tensor in weights.values() if tensor.data_type == kind]
            assert sum(np.prod(tensor.dims) for tensor in halves) > 0.9 * sum(np.prod(t.dims) for t in weights.values())
            for node in model.graph.node:
                if node.op_type in ("LayerNormalization", "Softmax", "Gelu", "Div"):
                    assert not any(name in weights and weights[name].data_type == kind for name in node.input)
            assert {value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]} == {1}
    for role in ("encoder", "features"):
        assert {"QuantizeLinear", "DequantizeLinear"} <= nodes(bundle, role, "int8")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_runs_on_every_backend(every_precision: Any, backend: str, precision: str) -> None:
    if precision == "bf16" and not any(
        status.name == backend and "bf16" in status.precisions for status in samg_fast.backends.probe()
    ):
        pytest.skip(f"{backend} has no bf16 here")
    image, mask = picture(84, 60)
    with samg_fast.load(every_precision.path, backend=backend, precision=precision, threads=2) as segmenter:
        target = segmenter.identify(image, mask, points=[(30, 40)])
        out = segmenter.segment(image, target, trace=True)
    with samg_fast.load(every_precision.path, backend="onnxruntime") as segmenter:
        expected = segmenter.identify(image, mask, points=[(30, 40)])
    assert out.mask.shape == (84, 60)
    floor = {"fp32": 0.99999, "fp16": 0.9999, "bf16": 0.999, "int8": 0.9}[precision]
    assert float(target.sam @ expected.sam) > floor
    assert float(target.dino @ expected.dino) > floor


def test_open_and_fixed_batches_agree(batches: list[Path], backend: str) -> None:
    """Three frames do not fill graphs with a batch of two."""
    image, mask = picture(72, 72, seed=3)
    frames = np.stack([picture(72, 72, seed=seed)[0] for seed in range(3)])
    similar = []
    for path in batches:
        with samg_fast.load(path, backend=backend, threads=2) as segmenter:
            target = segmenter.adapt(segmenter.identify(image, mask), image, mask)
            assert [out.mask.shape for out in segmenter.segment_batch(frames, target)] == [(72, 72)] * 3
            one = segmenter.segment(frames[2], target, trace=True)
            similar.append((target.sam, one.trace.similarity[0], one.trace.decodes[0].low_res, target.mask_weights))
    for other in similar[1:]:
        for a, b, tolerance in zip(similar[0], other, (1e-5, 1e-4, 2e-2, 5e-3), strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(a).max()))


def test_another_side_with_weights_beside_the_graph(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_MAX_BYTES", 1 << 16)
    report = export(tmp_path / "large", sam_side=352)
    bundle = Bundle.open(report.path)
    assert bundle.manifest.encoder.side == 352
    assert bundle.file("encoder").data == "encoder.onnx.data"
    assert (report.path / "encoder.onnx").stat().st_size < (report.path / "encoder.onnx.data").stat().st_size
    image, mask = picture(64, 64)
    for backend in ("openvino", "onnxruntime"):
        with samg_fast.load(report.path, backend=backend, device="cpu") as segmenter:
            segmenter.segment(image, segmenter.identify(image, mask))
    data = report.path / "encoder.onnx.data"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(BundleError, match=r"encoder.onnx.data is truncated or altered"):
        Bundle.open(report.path)


def test_a_graph_that_differs_from_the_model_is_refused(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold that changes one weight by a hundredth."""
    original = export_module.fuse

    def lossy(model: Any) -> Any:
        original(model)
        for name, parameter in model.named_parameters():
            if name.endswith("stages.2.op_list.0.main.point_conv.conv.weight"):
                parameter.data *= 1.01
        return model

    monkeypatch.setattr(export_module, "fuse", lossy)
    with pytest.raises(BundleError, match="encoder at fp32 does not agree with PyTorch: embedding differs by up to"):
        export(tmp_path / "wrong")
    with pytest.raises(BundleError, match=r"has no manifest.json"):
        samg_fast.load(tmp_path / "wrong")


def test_a_precision_under_its_threshold_is_refused(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {role: replace(each, cosine=0.99999999) for role, each in THRESHOLDS["int8"].items()}
    monkeypatch.setitem(THRESHOLDS, "int8", strict)
    with pytest.raises(BundleError, match="at int8 does not agree with PyTorch"):
        export(tmp_path / "int8", precision="int8")
    assert not (tmp_path / "int8" / "manifest.json").exists()


def test_a_half_that_overflows_is_refused(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hot(model: onnx.ModelProto, *_: Any) -> onnx.ModelProto:
        half = naive_half(model)
        first = next(node for node in half.graph.node if node.op_type == "Conv")
        weight = next(tensor for tensor in half.graph.initializer if tensor.name == first.input[1])
        values = onnx.numpy_helper.to_array(weight) * np.float16(30000)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return half

    monkeypatch.setattr(variants, "to_half", hot)
    with pytest.raises(BundleError, match="encoder at fp16 does not agree with PyTorch"):
        export(tmp_path / "fp16", precision="fp16")


def test_a_failed_export_leaves_no_older_bundle_loadable(
    export: Export, every_precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(every_precision.path, tmp_path / "again")
    monkeypatch.setattr(export_module, "trace", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(tmp_path / "again")
    with pytest.raises(BundleError, match=r"has no manifest.json"):
        samg_fast.load(tmp_path / "again")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"dino_side": 450}, InputError, "dino_side is 450, expected a multiple of 14"),
        ({"sam_side": 500}, InputError, "sam_side is 500, expected a multiple of 32"),
        ({"slots": 5}, InputError, "slots is 5, expected 6 or more"),
        ({"batch": 0}, InputError, "batch is 0, expected 1 or more"),
        ({"batch": 1.5}, InputTypeError, "batch must be a whole number, not 1.5"),
        ({"precision": "fp8"}, InputError, "precision is 'fp8', expected some of fp32, fp16, bf16, int8"),
        ({"precision": 16}, InputTypeError, "precision must be a name or a sequence of names, not 16"),
    ],
)
def test_bad_options(
    sam_checkpoint: Path,
    dino_checkpoint: Path,
    tmp_path: Path,
    options: dict[str, Any],
    kind: type[Exception],
    words: str,
) -> None:
    with pytest.raises(kind, match=words):
        export_bundle("toy", sam_checkpoint, "toy", dino_checkpoint, tmp_path, **options)


def test_bad_models(sam_checkpoint: Path, dino_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sam is 'l9', expected one of efficientvit-sam-l0, "):
        export_bundle("l9", sam_checkpoint, "toy", dino_checkpoint, tmp_path)
    with pytest.raises(InputTypeError, match="dino must be a name, not int"):
        export_bundle("toy", sam_checkpoint, 14, dino_checkpoint, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="is a checkpoint of efficientvit-sam-toy, not of efficientvit-sam-l0"):
        export_bundle("l0", sam_checkpoint, "toy", dino_checkpoint, tmp_path)
    with pytest.raises(CheckpointError, match="is a checkpoint of dinov2-toy, not of dinov2-toy-reg"):
        export_bundle("toy", sam_checkpoint, "toy-reg", dino_checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="session")
def tiny_precisions(quick_exports: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Add precisions to the shipped bundle."""
    return once(tmp_path_factory, "tiny", lambda folder: add_precisions("tiny", folder, precision="int8,fp16"))


def test_more_precisions_for_the_shipped_bundle(tiny_precisions: Any, backend: str) -> None:
    """One graph for encoder and features, weights stored as float16, a dynamic batch."""
    report = tiny_precisions
    bundle = Bundle.open(report.path)
    assert bundle.manifest.precisions == ("fp32", "fp16", "int8")
    assert bundle.fingerprint == Bundle.open(samg_fast.bundle.zoo.resolve("tiny")).fingerprint
    assert bundle.file("features", "int8") == bundle.file("encoder", "int8")
    assert {each.output for each in report.outputs if each.precision == "int8"} == {"embedding", "features"}
    image, mask = picture(84, 84)
    with samg_fast.load(report.path, backend=backend, precision="int8") as segmenter:
        assert len(segmenter.segment_batch(np.stack([image] * 3), segmenter.identify(image, mask))) == 3
    with pytest.raises(InputError, match="the bundle itself; expected another folder"):
        add_precisions(report.path, report.path, precision="int8")


def test_too_many_points(every_precision: Any) -> None:
    image, mask = picture(64, 64)
    with samg_fast.load(every_precision.path) as segmenter:
        segmenter.identify(image, mask, points=[(32, 32)] * 10)
        with pytest.raises(InputError, match="has slots for 10 at most"):
            segmenter.identify(image, mask, points=[(32, 32)] * 11)


def test_the_command(
    sam_checkpoint: Path,
    dino_checkpoint: Path,
    quick_exports: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = [
        "export",
        "--sam",
        "toy",
        "--dino",
        "toy",
        "--dino-side",
        str(DINO_SIDE),
        "--json",
        str(tmp_path / "r.json"),
    ]
    arguments += ["--sam-checkpoint", str(sam_checkpoint)]
    missing = CliRunner().invoke(app, arguments)
    assert missing.exit_code == 1
    result = CliRunner().invoke(app, [*arguments, "--dino-checkpoint", str(dino_checkpoint)])
    assert result.exit_code == 0, result.output
    assert "low_res_masks" in result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert {each["role"] for each in report["outputs"]} == set(ROLES)
    with samg_fast.load("toy-toy") as segmenter:
        assert segmenter.bundle.path == tmp_path / "samg-fast" / "bundles" / "toy-toy"
