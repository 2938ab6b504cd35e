"""What the tests share: synthetic bundles, and segmenters on the processor's backends."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import samg_fast
from support import devices
from support.synthetic_bundle import write_bundle
from support.toy_models import dino_checkpoint, quick_exports, sam_checkpoint, toys  # noqa: F401


@pytest.fixture(autouse=True)
def heard_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """Undo what NNCF leaves behind: every handler of the root logger, the tests' own too, takes errors alone."""
    caplog.handler.setLevel(logging.NOTSET)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Press Ctrl-C; it is heard here though whoever started the tests, as a job in the background, may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a bundle whose features have a network of their own."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "separate", shared=False)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a bundle whose encoder and features are one graph, with other weights."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "shared", shared=True, prompt_side=64, seed=7)


@pytest.fixture(scope="session", params=["openvino", "onnxruntime"])
def backend(request: pytest.FixtureRequest) -> str:
    """Name each of the processor's backends in turn; one that is not installed is skipped by name."""
    name: str = request.param
    pytest.importorskip(name)
    return name


@pytest.fixture(scope="session", params=["separate", "shared"])
def segmenter(
    request: pytest.FixtureRequest, backend: str, bundle_folder: Path, shared_folder: Path
) -> Iterator[samg_fast.Segmenter]:
    """Open each synthetic bundle on each backend."""
    folder = bundle_folder if request.param == "separate" else shared_folder
    with samg_fast.load(folder, backend=backend, device="cpu", threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def one_segmenter(backend: str, bundle_folder: Path) -> Iterator[samg_fast.Segmenter]:
    """Open the separate bundle, where one kind of bundle is enough."""
    with samg_fast.load(bundle_folder, backend=backend, device="cpu", threads=1) as opened:
        yield opened


@pytest.fixture(params=devices.NAMES)
def place(request: pytest.FixtureRequest) -> Iterator[devices.Place]:
    """Open each device in turn; what this build or this machine lacks is skipped by name."""
    with devices.opened(request.param) as opened:
        yield opened
