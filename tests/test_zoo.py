"""Names of bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from samg_fast import bundles, zoo
from samg_fast.errors import BundleError


@pytest.fixture
def shipped(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ship the synthetic bundle under the name "small"."""
    (tmp_path / "small").symlink_to(bundle_folder)
    monkeypatch.setattr(zoo, "BUNDLES", tmp_path)
    return tmp_path / "small"


def test_lists(shipped: Path) -> None:
    names = [info.name for info in bundles()]
    assert names[0] == "small"
    assert {"l0-vits14", "l1-vitb14", "xl1-vitl14"} <= set(names)
    first, *others = bundles()
    assert first.shipped
    assert first.description == "made for tests"
    assert not any(info.shipped for info in others)
    assert all("made from official checkpoints" in info.description for info in others)


def test_a_broken_manifest_is_still_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    monkeypatch.setattr(zoo, "BUNDLES", tmp_path)
    assert bundles()[0].description.startswith("its manifest.json cannot be read")


def test_resolves(shipped: Path, bundle_folder: Path) -> None:
    assert zoo.resolve("small") == shipped
    assert zoo.resolve(bundle_folder) == bundle_folder
    assert zoo.resolve(str(bundle_folder)) == bundle_folder


def test_unknown_name(shipped: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle 'huge': .*shipped bundles are small"):
        zoo.resolve("huge")


def test_official_name(shipped: Path) -> None:
    with pytest.raises(BundleError, match="l1-vitb14 is not shipped: it is made from official checkpoints"):
        zoo.resolve("l1-vitb14")
