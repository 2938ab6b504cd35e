"""What samg_fast uses of ONNX Runtime's CUDA provider, on the fake of cuda-core: its numbers are the CPU provider's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

from support.fake_cuda import Item, Machine, memory

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Binding:
    """Where inputs and outputs are; a name that is bound again is bound anew."""

    def __init__(self) -> None:
        self.inputs: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.outputs: dict[str, tuple[int, tuple[int, ...]]] = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: tuple[int, ...], buffer_ptr: int
    ) -> None:
        assert (device_type, device_id, element_type) == ("cuda", 0, np.float32)
        self.inputs[name] = buffer_ptr, shape

    def bind_output(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: tuple[int, ...], buffer_ptr: int
    ) -> None:
        assert (device_type, device_id, element_type) == ("cuda", 0, np.float32)
        self.outputs[name] = buffer_ptr, shape


class Library:
    """The module, with a CUDA provider.

    Attributes
    ----------
    providers : list of str
        What a session gets.
    left : set of str
        Operators that it leaves to the processor.
    missing : str
        The library that cannot be loaded.
    """

    cuda_version = "13.0"
    __version__ = "1.31.1"
    RunOptions = ort.RunOptions

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.providers = [CUDA, CPU]
        self.left: set[str] = set()
        self.missing = ""
        self.opened: list[dict[str, str]] = []
        library = self

        class InferenceSession(_Session):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(library, *arguments, **options)

        self.InferenceSession = InferenceSession
        self.OrtValue = SimpleNamespace(ortvalue_from_shape_and_type=self._value)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        if self.missing:
            print(f"Failed to load {self.missing}: cannot open shared object file")
            print("Please follow the instructions to install CUDA.")

    def _value(self, shape: list[int], element_type: Any, device_type: str, device_id: int) -> object:
        assert (shape, element_type, device_type, device_id) == ([1], np.float32, "cuda", 0)
        if self.missing:
            raise RuntimeError("provider_bridge_ort.cc:2465 CUDA Provider not available, can't get interface for it\n")
        return object()


class _Session:
    """A session of the CPU provider, which runs when its stream comes to it."""

    def __init__(
        self,
        library: Library,
        path: str,
        options: Any,
        *,
        providers: list[tuple[str, dict[str, str]]],
        enable_fallback: int,
    ) -> None:
        ((name, self.options),) = providers
        assert (name, enable_fallback) == (CUDA, 0)
        assert options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        self._library = library
        self._session = ort.InferenceSession(path, options, providers=[CPU])
        library.opened.append(self.options)
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def get_providers(self) -> list[str]:
        return self._library.providers

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = [node for part in self._session.get_provider_graph_assignment_info() for node in part.get_nodes()]
        return [
            SimpleNamespace(ep_name=CPU if node.op_type in self._library.left else CUDA, get_nodes=lambda n=node: [n])
            for node in nodes
        ]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        for values, bound in ((self.get_inputs(), binding.inputs), (self.get_outputs(), binding.outputs)):
            for value in values:
                shape = bound[value.name][1]
                if list(shape[1:]) != value.shape[1:]:
                    raise RuntimeError(f"Got invalid dimensions for {value.name}\nsecond line")
        inputs, outputs = dict(binding.inputs), dict(binding.outputs)

        def array(address: int, shape: tuple[int, ...]) -> Any:
            return memory(address, int(np.prod(shape)) * 4).view(np.float32).reshape(shape)

        def work() -> None:
            found = self._session.run(list(outputs), {name: array(*each) for name, each in inputs.items()})
            for each, values in zip(outputs.values(), found, strict=True):
                array(*each)[...] = values

        self._library.machine.log.append("session")
        self._library.machine.stream(int(self.options["user_compute_stream"])).push(Item("session", work))
