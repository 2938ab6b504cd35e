"""A server that answers as Triton does, with ONNX Runtime behind it: what it loads is a model repository.

It is as strict as Triton about what a configuration says: names, types, dims, the batch axis, and each tensor's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, ModelConfig
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server


class RefusedError(Exception):
    """What the server answers with an error."""


class Model:
    """One folder of a repository."""

    def __init__(self, folder: Path) -> None:
        self.config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())
        assert self.config.name == folder.name, "Triton asks for the folder's name"
        assert all(port.dims for port in (*self.config.input, *self.config.output)), "Triton has no empty dims"
        self.session = ort.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
        assert {each.name for each in self.session.get_inputs()} == {port.name for port in self.config.input}
        assert [each.name for each in self.session.get_outputs()] == [port.name for port in self.config.output]

    def infer(self, request: Any) -> Any:
        given = dict(zip((tensor.name for tensor in request.inputs), request.inputs, strict=True))
        if given.keys() != {port.name for port in self.config.input}:
            raise RefusedError(f"expected other inputs than {sorted(given)}")
        raw = dict(zip(given, request.raw_input_contents, strict=True))
        arrays = {port.name: self.array(port, given[port.name], raw[port.name]) for port in self.config.input}
        response = messages.ModelInferResponse(model_name=self.config.name, model_version="1")
        for port, array in zip(self.config.output, self.session.run(None, arrays), strict=True):
            batch = array.shape[:1] if self.config.max_batch_size else ()
            assert array.shape == (*batch, *port.dims), "what the graph gives is what the configuration says"
            response.outputs.add(name=port.name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response

    def array(self, port: Any, tensor: Any, raw: bytes) -> NDArray[np.float32]:
        assert port.data_type == TYPE_FP32
        shape, most = tuple(tensor.shape), self.config.max_batch_size
        if most and not 1 <= shape[0] <= most:
            raise RefusedError(f"inference request batch-size must be <= {most}, not {shape[0]}")
        batch = shape[:1] if most else ()
        if tensor.datatype != "FP32" or shape != (*batch, *port.dims):
            raise RefusedError(f"{port.name} is {tensor.datatype} {shape}, expected FP32 {(*batch, *port.dims)}")
        if len(raw) != 4 * prod(shape):
            raise RefusedError(f"{port.name} has {len(raw)} bytes for {shape}")
        if port.HasField("reshape"):
            shape = (*batch, *port.reshape.shape)
        return np.frombuffer(raw, np.float32).reshape(shape)


class Service(GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, repository: Path) -> None:
        self.models = {folder.name: Model(folder) for folder in repository.iterdir()}
        self.asked: list[str] = []

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's)
        return messages.ServerMetadataResponse(name="triton", version="2.0")

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        return messages.ModelConfigResponse(config=self.models[request.name].config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request.model_name)
        try:
            return self.models[request.model_name].infer(request)
        except RefusedError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


@contextmanager
def serving(repository: Path) -> Iterator[tuple[str, Service]]:
    """Serve a repository until the block ends; gives the address and the service."""
    service = Service(repository)
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(2), options=unlimited)
    add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        server.stop(None).wait()
