"""Engines on the GPU of this machine give the same numbers as ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from samg_fast.backends.tensorrt import TensorRtNetwork, build_engine, dialect
from samg_fast.bundle.zoo import resolve
from samg_fast.devices import driver
from samg_fast.devices.cuda import Cuda

pytestmark = pytest.mark.gpu

ENCODER = resolve("tiny") / "encoder.onnx"


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_the_numbers_are_those_of_the_graph(backend: str) -> None:
    pytest.importorskip(dialect.MODULES[backend], reason=f"needs what the {backend} extra brings")
    if driver.find().found[0].compute_capability < dialect.load(backend).min_capability:
        pytest.skip(f"the GPU is too old for {backend}")
    cuda = Cuda()
    engine = build_engine(ENCODER, backend=backend, precision="fp32", batches=(1, 4)).engine
    network = TensorRtNetwork(cuda, ENCODER.name, engine, backend=backend)
    session = ort.InferenceSession(ENCODER, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 4, 1):
        image = np.random.default_rng(batch).normal(size=(batch, 3, 96, 96)).astype(np.float32)
        wanted = session.run(["embedding", "features"], {"image": image})
        found = network(image=image)
        for name, value in zip(("embedding", "features"), wanted, strict=True):
            # float32 sums in another order; TF32 errors would be a hundred times as large
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * np.abs(value).max())
