"""Cut a target out of frames with the networks on a Triton server and everything between them here.

    samg-fast export --triton repository --bundle tiny
    tritonserver --model-repository=repository
    python examples/triton_client.py --url localhost:8001 --bundle tiny

The bundle must be here too: its manifest says how frames become inputs, its fingerprint that the server has the same.
Needs the extras ``cpu`` and ``triton``.
"""

from __future__ import annotations

import argparse
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

import samg_fast
from samg_fast.bundle import Bundle
from samg_fast.bundle.zoo import resolve
from samg_fast.errors import BackendError, SamgError
from samg_fast.samples import load_pack
from samg_fast.serving.config import FINGERPRINT, PRECISION, model_name


class Connection(threading.local):
    """A client for each thread, as Triton's may not be shared."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = InferenceServerClient(url)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the client; that no server answers, or what one refuses, is a `BackendError`."""
        try:
            return getattr(self.client, method)(*arguments)
        except InferenceServerException as error:
            what = (
                "no Triton server answers"
                if error.status() == "StatusCode.UNAVAILABLE"
                else "the Triton server refused"
            )
            raise BackendError(f"{what} {method} at {self.url}: {error.message()}") from error


class TritonNetwork:
    """A model on the server, as a `samg_fast.backends.Network`."""

    def __init__(self, connection: Connection, config: Any) -> None:
        self._connection = connection
        self._name = config.name
        # On the wire every tensor has its dims, after the batch axis where the server adds one
        batch_axis = 1 if config.max_batch_size else 0
        self._axes = {port.name: batch_axis + len(port.dims) for port in config.input}
        self._outputs = [port.name for port in config.output]

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the model; outputs are new arrays, for reading."""
        result = self._connection.ask("infer", self._name, [self._tensor(*each) for each in inputs.items()])
        return {name: result.as_numpy(name) for name in self._outputs}

    def _tensor(self, name: str, array: NDArray[Any]) -> InferInput:
        dense = np.ascontiguousarray(array, np.float32)
        dense = dense.reshape(dense.shape + (1,) * (self._axes[name] - dense.ndim))
        tensor = InferInput(name, dense.shape, "FP32")
        tensor.set_data_from_numpy(dense)
        return tensor


class TritonServer:
    """A Triton server that holds a bundle's networks, as a `samg_fast.backends.Runtime`."""

    name = "triton"
    threads: int | None = None

    def __init__(self, bundle: Bundle, url: str) -> None:
        self._connection = Connection(url)
        self._bundle = bundle
        self.version: str = self._connection.ask("get_server_metadata").version
        self.precision: str = self._config("encoder").parameters[PRECISION].string_value
        self.networks = {role: TritonNetwork(self._connection, self._config(role)) for role in bundle.manifest.graphs}

    def _config(self, role: Any) -> Any:
        config = self._connection.ask("get_model_config", model_name(self._bundle, role)).config
        if config.parameters[FINGERPRINT].string_value != self._bundle.fingerprint:
            raise BackendError(f"the Triton server's {config.name} is of another bundle than the {role} here")
        return config


def main() -> None:
    """Segment rendered frames that ship with the package, and compare with the truth."""
    parser = argparse.ArgumentParser(description="Segment frames with networks on a Triton server.")
    parser.add_argument("--url", default="localhost:8001", help="the server's gRPC address")
    parser.add_argument("--bundle", default="tiny", help="the name or folder of the bundle that it serves")
    options = parser.parse_args()

    bundle = Bundle.open(resolve(options.bundle))
    walker = load_pack().tasks["walker_walk"]
    frames, truth = walker.settings["video_hard"]
    server = TritonServer(bundle, options.url)
    with samg_fast.Segmenter(bundle, server, server.networks) as segmenter:
        print(segmenter)
        target = segmenter.identify(walker.reference, walker.reference_mask)
        for frame, mask in zip(frames[:8], truth[:8], strict=True):
            out = segmenter.segment(frame, target)
            iou = (out.mask & mask).sum() / (out.mask | mask).sum()
            print(f"IoU {iou:.2f}, score {out.score:.2f}, {out.timings['total']:.1f} ms")
            assert out.mask.any()


if __name__ == "__main__":
    try:
        main()
    except SamgError as error:
        sys.exit(f"triton_client.py: {error}")
