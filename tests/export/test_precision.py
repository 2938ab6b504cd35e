"""Half precision: types in a graph, emulation without hardware that has it, and no overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="exporting needs the extra export")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from benchmarks.eager.weights import fill  # noqa: E402
from samg_fast import ops  # noqa: E402
from samg_fast.export import sam as sam_module  # noqa: E402
from samg_fast.export.bundle import sam_spec  # noqa: E402
from samg_fast.export.efficientvit import ENCODERS  # noqa: E402
from samg_fast.export.emulate import emulated, measure_ranges  # noqa: E402
from samg_fast.export.fuse import fuse  # noqa: E402
from samg_fast.export.graph import trace  # noqa: E402
from samg_fast.export.precision import FLOAT16_LARGEST, to_half, watched  # noqa: E402
from support.naive_half import naive_half  # noqa: E402
from support.synthetic_bundle import picture  # noqa: E402

Floats = NDArray[np.float32]


def run(model: onnx.ModelProto, **inputs: Floats) -> list[Floats]:
    """Run a float32 graph on ONNX Runtime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Floats] = session.run(None, inputs)
    return found


def casts(kind: int) -> onnx.ModelProto:
    """Make a graph that casts to a half type and back."""
    there, back = helper.make_node("Cast", ["x"], ["h"], to=kind), helper.make_node("Cast", ["h"], ["y"], to=1)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([there, back], "casts", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(TensorProto.FLOAT16, torch.float16), (TensorProto.BFLOAT16, torch.bfloat16)]
)
def test_emulation_rounds_as_the_type_does(kind: int, dtype: Any) -> None:
    """Exact over all magnitudes, from subnormal to beyond the range; overflow may give infinity or NaN."""
    random = np.random.default_rng(0)
    x = random.standard_normal(20000) * 10.0 ** random.uniform(-9, 6, 20000)
    edges = [65504, 65519.9, 65520, -70000, 0, 6e-8, 2.9e-8, -3.1e-8, 6.1e-5, 1 + 2.0**-11, 1 + 3 * 2.0**-11]
    values = np.concatenate([x, edges]).astype(np.float32)
    found = run(emulated(casts(kind)), x=values)[0]
    expected = torch.from_numpy(values).to(dtype).float().numpy()
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[finite], expected[finite])
    assert not np.isfinite(found[~finite]).any()


def test_a_graph_in_half_rounds_every_product() -> None:
    """Two float16 products with a float32 GELU between give what torch computes with the same types."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GELU(), torch.nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    model = trace(module, {"x": x}, ["y"], dynamic_batch=False)
    half = to_half(model, "fp16")
    onnx.checker.check_model(half, full_check=True)
    first, second = (module[i].weight.half().float() for i in (0, 2))
    with torch.no_grad():
        step = torch.nn.functional.conv2d(x.half().float(), first, module[0].bias.half().float()).half().float()
        step = torch.nn.functional.gelu(step).half().float()
        expected = torch.nn.functional.conv2d(step, second, module[2].bias.half().float()).half().float().numpy()
    found = run(emulated(half), x=x.numpy())[0]
    # Sums in another order may round differently, by one unit in float16's last place
    np.testing.assert_allclose(found, expected, rtol=2.0**-10, atol=2.0**-12)
    assert (found != run(model, x=x.numpy())[0]).any()


def encoder(variant: str, hot: float = 1.0) -> onnx.ModelProto:
    """Trace an image encoder with a small side, and the output of its second coarsest stage multiplied by `hot`.

    Only weights determine the size of activations, because batch norms do not adapt to their input.
    """
    with torch.device("meta"):
        model = sam_module.EfficientViTSam(variant)
    model.load_state_dict(fill(model.to_empty(device="cpu").state_dict()), assign=True)
    model.eval().requires_grad_(False)
    stage = model.image_encoder.backbone.stages[-2].op_list[0].main.point_conv
    with torch.no_grad():
        stage.norm.weight *= hot
        stage.norm.bias *= hot
    example = {"image": torch.zeros(1, 3, SIDE, SIDE)}
    return trace(fuse(model).image_encoder, example, ["embedding"], dynamic_batch=False)


SIDE = 256


@pytest.mark.parametrize("variant", ["l2", "xl0", pytest.param("xl1", marks=pytest.mark.slow)])
def test_activations_beyond_float16_s_range_are_handled(variant: str) -> None:
    """With ranges as reported for L2, XL0 and XL1, casting everything fails, but `to_half` agrees with float32."""
    model = encoder(variant, hot=3e5)
    images = [ops.preprocess(picture(84, 84, seed=seed)[0][None], [sam_spec(SIDE)])[0] for seed in (0, 1)]
    names = watched(model.graph)
    ranges = measure_ranges(model, names, [{"image": images[0]}])
    computed = {name for node in model.graph.node for name in node.output}
    assert max(value for name, value in ranges.items() if name in computed) > 4 * FLOAT16_LARGEST

    expected = run(model, image=images[1])[0]  # an image that the ranges were not measured on
    assert not np.isfinite(run(emulated(naive_half(model)), image=images[1])[0]).all()
    ours = to_half(model, "fp16", ranges)
    found = run(emulated(ours), image=images[1])[0]
    cosine = float(found.ravel() @ expected.ravel() / np.linalg.norm(found) / np.linalg.norm(expected))
    assert cosine >= 0.999
    # Without giving up on float16: nearly all weights are in it, and few products but the linear attention's are not
    halves = sum(np.prod(t.dims) for t in ours.graph.initializer if t.data_type == TensorProto.FLOAT16)
    assert halves > 0.95 * sum(np.prod(t.dims) for t in model.graph.initializer)
    assert 2 * attentions(variant) <= len(kept_products(ours)) <= 2 * attentions(variant) + 2


def attentions(variant: str) -> int:
    """Count the linear attentions of an encoder."""
    shape = ENCODERS[variant]
    return sum(n for n, kind in zip(shape.depths, shape.blocks, strict=True) if kind.startswith("att"))


def kept_products(model: onnx.ModelProto) -> list[str]:
    """Name the products whose operands are all float32."""
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    halves |= {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT16 for a in node.attribute)
    }
    kinds = ("Conv", "MatMul")
    return [node.name for node in model.graph.node if node.op_type in kinds and not halves & set(node.input)]


def test_the_linear_attention_stays_in_float32() -> None:
    """With small values too: the eight products of L0's four attentions."""
    model = encoder("l0")
    half = to_half(model, "fp16")
    products = [node for node in half.graph.node if node.op_type == "MatMul"]
    assert len(products) == 2 * attentions("l0")
    assert {node.name for node in products} == set(kept_products(half))
    assert {node.op_type for node in naive_half(model).graph.node} >= {"MatMul", "Cast"}


def test_steep_attention_stays_in_float32() -> None:
    """A softmax of large logits keeps the products before it in float32; one of small logits does not."""

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

        def forward(self, x: Any) -> Any:
            logits = self.q(x) @ self.k(x).transpose(1, 2) / 4.0
            return logits.softmax(-1) @ x

    torch.manual_seed(0)
    module = Attention().eval()
    model = trace(module, {"x": torch.randn(1, 5, 16)}, ["y"], dynamic_batch=False)
    logits = next(
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and not any("weight" in n or "val" in n for n in node.input)
    )
    kept = {size: len(kept_products(to_half(model, "fp16", {logits.output[0]: size}))) for size in (1.0, 1000.0)}
    assert kept[1000.0] > kept[1.0]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_decoders_coordinates_stay_in_float32(precision: str) -> None:
    """In bfloat16 a corner of the prompt frame and a point half a pixel away would be the same number."""
    sam = sam_module.EfficientViTSam("l0")
    sam.load_state_dict(fill(sam.state_dict()))
    decoder = sam_module.PromptDecoder(sam.eval()).eval()
    example = {
        "embedding": torch.zeros(1, 256, 64, 64),
        "point_coords": torch.zeros(1, 6, 2),
        "point_labels": torch.zeros(1, 6),
        "mask_input": torch.zeros(1, 1, 256, 256),
        "has_mask_input": torch.zeros(1),
    }
    half = to_half(trace(decoder, example, ["low_res_masks", "iou"], dynamic_batch=False), precision)
    makers = {name: node for node in half.graph.node for name in node.output}
    waiting, met = [name for node in half.graph.node if node.op_type in ("Sin", "Cos") for name in node.input], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.output[0] not in met:
            met.add(node.output[0])
            assert node.op_type != "Cast"
            waiting += node.input
    assert met
