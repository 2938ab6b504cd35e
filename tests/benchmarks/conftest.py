"""Official models made small, and one bundle exported of them for all tests."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from support.once import once
from support.toy_models import small_encoder


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Give l0 and vits14 few channels, so that they run and are exported in seconds; the decoder stays as it is."""
    pytest.importorskip("onnxscript", reason="comparing with PyTorch needs the extra export")
    from benchmarks.official import models
    from samg_fast.export import dinov2, efficientvit

    patch.setitem(efficientvit.ENCODERS, "l0", small_encoder(128, (8, 16, 16, 32, 32)))
    patch.setitem(dinov2.FEATURES, "vits14", dinov2.FeatureShape(48, 1, 2))
    patch.setattr(models, "PRECISIONS", ("fp32",))


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let l0 and vits14 be small ones."""
    make_small(monkeypatch)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the small models, for one frame at once."""

    def export(folder: Path) -> Path:
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            make_small(patch)
            from benchmarks.official.models import Official

            return Official("l0", "vits14", 2).export(folder / "bundle", stack)

    return once(tmp_path_factory, "small-official", export)
