"""Names of bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samg_fast import bundles
from samg_fast.bundle import zoo
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.errors import BundleError, FileError


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


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("trouble", ["no home", "another user's home"])
def test_a_container_without_a_home(trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ships is found wherever the cache is not; what needs the cache says what is missing."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if trouble == "no home":
        monkeypatch.setattr(Path, "home", no_home)
        with pytest.raises(FileError, match="no folder for a cache, as this user has no home: set XDG_CACHE_HOME"):
            zoo.exported_folder()
        with pytest.raises(FileError, match="set XDG_CACHE_HOME"):
            EngineCache()
    else:
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        glob = Path.glob

        def forbidden(self: Path, pattern: str) -> Any:
            if tmp_path in self.parents:
                raise PermissionError(13, "Permission denied", str(self))
            return glob(self, pattern)

        monkeypatch.setattr(Path, "glob", forbidden)
    assert next(info.name for info in bundles()) == "tiny"
    assert zoo.resolve("tiny") == zoo.BUNDLES / "tiny"
    with pytest.raises(BundleError, match="there is no bundle 'large'"):
        zoo.resolve("large")
