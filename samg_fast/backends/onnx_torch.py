"""ONNX files as graphs of PyTorch.

A graph is read whole or refused, with the node that is not supported: its data types, casts and attributes are honoured
as they are written. What depends on constants alone is computed once, when the file is read.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx

from samg_fast.backends.onnx_operators import MIXED, NATIVE, OPERATORS, TYPES
from samg_fast.backends.plain import first_line

__all__ = ["OnnxGraph", "UnsupportedError", "read"]

_OPSETS = range(17, 21)
_FLOAT = onnx.TensorProto.FLOAT


class UnsupportedError(Exception):
    """A file that is no ONNX graph, or one that PyTorch cannot run as it is written."""


@dataclass(frozen=True)
class OnnxGraph:
    """An ONNX graph as a module of PyTorch.

    Parameters
    ----------
    module : torch.fx.GraphModule
        Takes the inputs in their order, as float32 tensors, and returns a tuple of the outputs.
    inputs : mapping of str to tuple of int or None
        The shape of each; None where it may vary.
    outputs : mapping of str to tuple of int
        The shape of each, with 1 for what may vary.
    """

    module: fx.GraphModule
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: Mapping[str, tuple[int, ...]]


def read(path: str | os.PathLike[str]) -> OnnxGraph:
    """Read an ONNX file.

    Parameters
    ----------
    path : str or os.PathLike
        The file; weights outside of it are looked for in its folder.

    Raises
    ------
    UnsupportedError
        It cannot be read, is no valid graph from float32 to float32, or has an operator, an attribute or an opset that
        is not supported; the message names it.
    """
    try:
        model = onnx.load(Path(path))
        onnx.checker.check_model(str(path))
        constants = {each.name: _tensor(each) for each in model.graph.initializer}
    except Exception as error:  # onnx's and protobuf's share no base but Exception
        raise UnsupportedError(first_line(error)) from error
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset not in _OPSETS:
        raise UnsupportedError(f"its opset is {opset}, expected {_OPSETS[0]} to {_OPSETS[-1]}")
    if model.graph.sparse_initializer:
        raise UnsupportedError("its sparse weights are not supported")
    ports = [port for port in model.graph.input if port.name not in constants]
    for port in ports:
        if port.type.tensor_type.elem_type != _FLOAT:
            raise UnsupportedError(f"its input {port.name} is not float32")
    inputs = {port.name: tuple(_size(each) for each in port.type.tensor_type.shape.dim) for port in ports}
    names = [port.name for port in model.graph.output]
    translator = _Translator(inputs, constants)
    for node in model.graph.node:
        translator.add(node)
    module = translator.finish(names)
    made = _Check(module).run(*(_example(shape) for shape in inputs.values()))
    for name, tensor in zip(names, made, strict=True):
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
            raise UnsupportedError(f"its output {name} is not float32")
    return OnnxGraph(module, inputs, {name: tuple(tensor.shape) for name, tensor in zip(names, made, strict=True)})


class _Translator:
    """Turns nodes, in the order of the file, into calls of PyTorch's functions."""

    def __init__(self, inputs: Mapping[str, Any], constants: dict[str, Tensor]) -> None:
        self._graph = fx.Graph()
        self._constants = constants
        self._weights: dict[str, Tensor] = {}
        self._values = {name: self._graph.placeholder(f"input_{index}") for index, name in enumerate(inputs)}
        self._sizes: set[str] = set()

    def add(self, node: onnx.NodeProto) -> None:
        """Add a node; one of constants is computed at once."""
        try:
            self._add(node)
        except Exception as error:  # PyTorch's share no base but Exception
            raise UnsupportedError(f"{_title(node)}: {first_line(error)}") from error

    def finish(self, outputs: Sequence[str]) -> fx.GraphModule:
        """Return the whole graph."""
        self._graph.output(tuple(self._value(name) for name in outputs))
        self._graph.eliminate_dead_code()
        used = {node.target for node in self._graph.nodes if node.op == "get_attr"}
        return fx.GraphModule({name: each for name, each in self._weights.items() if name in used}, self._graph)

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and not node.domain:
            self._constants[node.output[0]] = _constant(node)
            return
        function = NATIVE.get(node.op_type) or OPERATORS.get(node.op_type)
        if function is None or node.domain not in ("", "ai.onnx"):
            raise ValueError(f"{node.domain or 'ai.onnx'}.{node.op_type} is not supported")
        known = _Parameters.of(function)
        several = "outputs" in known.attributes
        keywords = known.check({each.name: _attribute(each) for each in node.attribute})
        if several:
            keywords["outputs"] = len(node.output)
        elif any(node.output[1:]):
            raise ValueError(f"its output {node.output[1]} is not supported")
        sizes = any(name in self._sizes for name in node.input) and node.op_type == "Concat"
        hosts = [sizes or known.on_host(index) for index in range(len(node.input))]
        if all(name in self._constants or not name for name in node.input):
            values = [self._constant(name, host) for name, host in zip(node.input, hosts, strict=True)]
            made = _call(function, values, keywords)
            if node.op_type == "Shape":
                made = torch.tensor(made, dtype=torch.int64, device="cpu")
            self._constants.update(zip(node.output, made if several else [made], strict=True))
            return
        arguments = [self._argument(name, host) for name, host in zip(node.input, hosts, strict=True)]
        call = self._graph.call_function(function, tuple(arguments), keywords)
        call.meta["title"] = _title(node)
        if node.op_type == "Shape" or sizes:
            self._sizes.add(node.output[0])
        for index, name in enumerate(node.output):
            self._values[name] = self._graph.call_function(operator.getitem, (call, index)) if several else call

    def _argument(self, name: str, host: bool) -> Any:
        """Return what a function is called with for an input of a node."""
        if host and name and name not in self._constants and name not in self._sizes:
            raise ValueError(f"its input {name} is not supported where it is no constant")
        if name in self._sizes and not host:
            raise ValueError(f"its input {name}, a shape, is not supported")
        return self._constant(name, host) if host and name not in self._sizes else self._value(name)

    def _constant(self, name: str, host: bool) -> Any:
        if not name:  # an input that is left out
            return None
        value = self._constants[name]
        return _plain(value.tolist()) if host else value

    def _value(self, name: str) -> fx.Node | None:
        if name in self._constants and name not in self._values:
            weight = f"weight_{len(self._weights)}"
            self._weights[weight] = self._constants[name]
            self._values[name] = self._graph.get_attr(weight)
        return self._values[name] if name else None


class _Parameters:
    """What a function of `samg_fast.backends.onnx_operators` takes: inputs of a node, and attributes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.inputs: list[Any] = []
        self.attributes: dict[str, Any] = {}
        self.required: set[str] = set()
        if function in NATIVE.values():  # these have no signature that Python knows of
            return
        hints = typing.get_type_hints(function)
        for name, each in inspect.signature(function).parameters.items():
            if each.kind is not each.KEYWORD_ONLY:
                self.inputs.append(hints[name])
            if each.kind is not each.VAR_POSITIONAL:
                self.attributes[name] = hints[name]
            if each.kind is each.KEYWORD_ONLY and each.default is each.empty and name != "outputs":
                self.required.add(name)

    @classmethod
    @functools.cache
    def of(cls, function: Callable[..., Any]) -> _Parameters:
        """Return those of a function."""
        return cls(function)

    def on_host(self, index: int) -> bool:
        """Say whether an input is a number or numbers, and no tensor."""
        if index >= len(self.inputs):
            return False
        hint = self.inputs[index]
        return Any is not hint and Tensor not in (hint, *typing.get_args(hint))

    def check(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Return attributes that are supported, and refuse any other."""
        for name, value in attributes.items():
            if name not in self.attributes:
                raise ValueError(f"its attribute {name} is not supported")
            hint = self.attributes[name]
            allowed = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else (value,)
            if value not in allowed:
                raise ValueError(f"its {name} is {value!r}, and only {' or '.join(map(repr, allowed))} is supported")
        for name in self.required - attributes.keys():
            raise ValueError(f"its {name} is not given, and ONNX's default is not supported")
        return attributes


class _Check(fx.Interpreter):
    """Runs a graph on tensors without values, and names the node where it fails."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False

    def run_node(self, node: fx.Node) -> Any:
        try:
            return super().run_node(node)
        except Exception as error:  # PyTorch's share no base but Exception
            raise UnsupportedError(f"{node.meta.get('title', node.name)}: {first_line(error)}") from error

    def fetch_attr(self, target: str) -> Any:
        return super().fetch_attr(target).to("meta")

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _call(target, args, kwargs)


def _call(function: Callable[..., Any], inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """Call a function on inputs of one data type, as ONNX wants it and PyTorch does not."""
    kinds = {str(each.dtype) for each in inputs if isinstance(each, Tensor) and each.dtype != torch.bool}
    if len(kinds) > 1 and function not in MIXED:
        raise ValueError(f"its inputs are of the data types {' and '.join(sorted(kinds))}, expected one")
    return function(*inputs, **attributes)


def _size(axis: Any) -> int | None:
    return axis.dim_value if axis.HasField("dim_value") else None


def _example(shape: tuple[int | None, ...]) -> Tensor:
    """Make a tensor without values, 1 long where that may vary."""
    return torch.empty([1 if size is None else size for size in shape], dtype=torch.float32, device="meta")


def _title(node: onnx.NodeProto) -> str:
    return f"node {node.name or node.output[0]} ({node.op_type})"


def _attribute(attribute: onnx.AttributeProto) -> Any:
    return _plain(onnx.helper.get_attribute_value(attribute))


def _plain(value: Any) -> Any:
    """Return a value as functions take it: texts decoded, lists as tuples."""
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def _constant(node: onnx.NodeProto) -> Tensor:
    """Return the value of a Constant node."""
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    kinds = {"value_int": torch.int64, "value_ints": torch.int64, "value_float": torch.float32}
    kinds["value_floats"] = torch.float32
    if attribute.name == "value":
        return _tensor(value)
    if attribute.name not in kinds:
        raise ValueError(f"its attribute {attribute.name} is not supported")
    return torch.tensor(value, dtype=kinds[attribute.name], device="cpu")  # whatever the process's default


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    """Return a tensor of a file as one of PyTorch, which knows no bfloat16 of NumPy's."""
    if tensor.data_type not in TYPES:
        raise ValueError(f"data type {tensor.data_type} of {tensor.name} is not supported")
    array = np.array(numpy_helper.to_array(tensor))  # PyTorch takes no read-only array
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
