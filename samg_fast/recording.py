"""Networks that keep what went through them, so that others can be given the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.backends import Network
from samg_fast.backends.plain import FilesAsTheyAre
from samg_fast.errors import BackendError

__all__ = ["FixedBackend", "Recorder", "Run"]

Run = tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]
"""Inputs and outputs of one call of a network, by name."""


class Recorder:
    """A network that keeps its runs.

    Parameters
    ----------
    network : Network
        What does the work.

    Attributes
    ----------
    runs : list of Run
        Every call so far, in order; copies.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self.runs: list[Run] = []

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the network; see `samg_fast.backends.Network`."""
        outputs = self._network(**inputs)
        self.runs.append(
            ({name: np.array(x) for name, x in inputs.items()}, {name: np.array(x) for name, x in outputs.items()})
        )
        return outputs


class FixedBackend(FilesAsTheyAre):
    """Networks that are there already, in place of ONNX files.

    Parameters
    ----------
    name : str
        What it calls itself.
    networks : mapping of str to Network
        Name of the ONNX file -> what runs instead.
    """

    def __init__(self, name: str, networks: Mapping[str, Network]) -> None:
        self.name, self.version, self.precision = name, "", "fp32"
        self.threads: int | None = None
        self._networks = networks

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> Network:  # noqa: ARG002 (fp32 alone)
        """Return the network that stands for a file.

        Raises
        ------
        BackendError
            None does.
        """
        name = Path(path).name
        if name not in self._networks:
            raise BackendError(f"no network stands for {name}")
        return self._networks[name]
