"""Names of bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from samg_fast import bundles
from samg_fast.bundle import zoo
from samg_fast.errors import BundleError


@pytest.fixture
def shipped(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the synthetic bundle a shipped one named "small"."""
    (tmp_path / "small").symlink_to(bundle_folder)
    monkeypatch.setattr(zoo, "BUNDLES", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "small"


def test_lists(shipped: Path) -> None:
    (info,) = bundles()  # official bundles that were not exported are not listed
    assert (info.name, info.path, info.description) == ("small", shipped, "made for tests")
    assert info.shipped


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
    with pytest.raises(BundleError, match=r"there is no bundle 'huge': .*bundles here are small"):
        zoo.resolve("huge")


def test_official_name(shipped: Path) -> None:
    words = "l1-vitb14-reg is not shipped: .* samg-fast pull efficientvit-sam-l1 dinov2-vitb14-reg && samg-fast export"
    with pytest.raises(BundleError, match=words):
        zoo.resolve("l1-vitb14-reg")


@pytest.mark.parametrize("name", ["l3-vits14", "l0-vitx14", "l0", "l0-vits14-", "vits14-l0"])
def test_other_names_are_not_official(shipped: Path, name: str) -> None:
    assert zoo.official_models("xl0-vitg14-reg") == ("xl0", "vitg14-reg")
    assert zoo.official_models(name) is None
    with pytest.raises(BundleError, match="there is no bundle"):
        zoo.resolve(name)


def test_an_exported_bundle_is_found_by_name(shipped: Path, bundle_folder: Path) -> None:
    zoo.exported_folder().mkdir(parents=True)
    (zoo.exported_folder() / "l1-vitb14").symlink_to(bundle_folder)
    assert zoo.resolve("l1-vitb14") == zoo.exported_folder() / "l1-vitb14"
    info = next(info for info in bundles() if info.name == "l1-vitb14")
    assert info.path == zoo.exported_folder() / "l1-vitb14"
    assert not info.shipped
