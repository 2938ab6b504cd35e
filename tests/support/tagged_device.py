"""PyTorch's ``"cuda"`` in host memory: says where code mixes devices, without a GPU, and gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CUDA = torch.device("cuda")

_MOVES = ("_has_compatible_shallow_copy_type", "__set__")  # how a module takes its weights to another device


class TaggedDevice(TorchFunctionMode):
    """While it is entered, tensors may be moved to ``"cuda"``; what CUDA would refuse of them is an AssertionError."""

    def __init__(self) -> None:
        super().__init__()
        self._there: dict[int, Tensor] = {}  # storages, kept so that no address is given twice

    def is_there(self, tensor: Tensor) -> bool:
        """Say whether a tensor would be on the GPU."""
        return tensor.untyped_storage().data_ptr() in self._there

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        name, tensors = getattr(func, "__name__", ""), list(_tensors([args, options]))
        there = [tensor for tensor in tensors if self.is_there(tensor)]
        if func == Tensor.device.__get__ and there:  # type: ignore[attr-defined]
            return _CUDA
        if name == "to" and isinstance(args[1], (str, torch.device)) and torch.device(args[1]) == _CUDA:
            return self._put(args[0].detach().clone())
        if name in ("cpu", "numpy") and there:
            assert name == "cpu" or options.get("force"), "numpy() of a tensor on a GPU"
            return args[0].detach().clone() if name == "cpu" else args[0].detach().numpy().copy()
        assert name != "__array__" or not there, "NumPy is given a tensor on a GPU"
        made_there = options.get("device") is not None and torch.device(options["device"]) == _CUDA
        if made_there:
            options["device"] = "cpu"
        mixed_well = made_there or name in _MOVES or not there
        assert mixed_well or all(self.is_there(each) or each.ndim == 0 for each in tensors), (
            f"{name} gets tensors of both devices"
        )
        out = func(*args, **options)
        for tensor in _tensors([out]) if made_there or there else ():
            self._put(tensor)
        return out

    def _put(self, tensor: Tensor) -> Tensor:
        self._there[tensor.untyped_storage().data_ptr()] = tensor
        return tensor


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
