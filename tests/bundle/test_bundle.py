"""Manifests and bundles: valid ones are read back, errors name what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import samg_fast
from samg_fast.bundle import MANIFEST, Bundle, FileSpec, Manifest, sha256_of, write_manifest
from samg_fast.errors import BundleError
from support.synthetic_bundle import picture

Values = dict[str, Any]


@pytest.fixture
def values(bundle_folder: Path) -> Values:
    """Return the plain values of a valid manifest."""
    read: Values = json.loads((bundle_folder / MANIFEST).read_text())
    return read


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of a valid bundle, to be damaged."""
    return shutil.copytree(bundle_folder, tmp_path / "copy")


def test_round_trip(values: Values, tmp_path: Path) -> None:
    manifest = Manifest.from_dict(values)
    write_manifest(tmp_path, manifest)
    again = Manifest.from_dict(json.loads((tmp_path / MANIFEST).read_text()))
    assert again == manifest
    assert again.to_dict() == manifest.to_dict()
    assert json.loads(json.dumps(manifest.to_dict())) == values


def test_an_agreement_is_kept_and_changes_no_target(bundle_folder: Path, tmp_path: Path) -> None:
    """It may be added later: targets made before stay valid."""
    bundle = Bundle.open(bundle_folder)
    assert bundle.manifest.agreement == {}
    stated = replace(bundle.manifest, agreement={"bf16": 0.9964})
    write_manifest(tmp_path, stated)
    assert Manifest.from_dict(json.loads((tmp_path / MANIFEST).read_text())) == stated
    assert Bundle(bundle.path, stated).fingerprint == bundle.fingerprint


def test_what_a_score_is_worth_is_kept_and_changes_no_target(bundle_folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    assert bundle.manifest.present is None
    for threshold in (0, 0.625, 1):
        stated = replace(bundle.manifest, present=threshold)
        write_manifest(tmp_path, stated)
        assert Manifest.from_dict(json.loads((tmp_path / MANIFEST).read_text())) == stated
        assert Bundle(bundle.path, stated).fingerprint == bundle.fingerprint


def test_a_decoder_says_whether_it_takes_the_target(bundle_folder: Path, shared_folder: Path, values: Values) -> None:
    assert not Bundle.open(bundle_folder).manifest.decoder.target
    assert Bundle.open(shared_folder).manifest.decoder.target
    values["decoder"]["target"] = True
    assert Manifest.from_dict(values).to_dict()["decoder"]["target"] is True
    values["decoder"]["target"] = False
    assert "target" not in Manifest.from_dict(values).to_dict()["decoder"]


def test_opens(bundle_folder: Path, shared_folder: Path) -> None:
    bundle, shared = Bundle.open(bundle_folder), Bundle.open(str(shared_folder))
    assert bundle.name == "synthetic"
    assert not bundle.manifest.shared_graph
    assert shared.manifest.shared_graph
    assert shared.onnx_path("features") == shared.onnx_path("encoder") == shared_folder / "encoder.onnx"
    assert bundle.manifest.max_parts == 6
    assert len({bundle.fingerprint, shared.fingerprint}) == 2


def test_fingerprint_follows_what_matters(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    manifest = bundle.manifest
    same = replace(manifest, name="other", description="other")
    assert Bundle(bundle.path, same).fingerprint == bundle.fingerprint
    for changed in (
        replace(manifest, decoder=replace(manifest.decoder, sha256="1" * 64)),
        replace(manifest, encoder=replace(manifest.encoder, mean=(0.1, 0.2, 0.3))),
        replace(manifest, prompt_side=97),
    ):
        assert Bundle(bundle.path, changed).fingerprint != bundle.fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v.pop("slots"), "missing key slots"),
        (lambda v: (v.pop("name"), v.pop("opset")), "missing keys name, opset"),
        (lambda v: v.pop("format"), "missing key format"),
        (lambda v: v["encoder"].pop("std"), r"missing key encoder\.std"),
        (lambda v: v.update(agreement=0.99), "agreement is 0.99, expected an object"),
        (lambda v: v.update(agreement={"bf16": 1.01}), r"agreement\.bf16 is 1.01, expected a number from 0 to 1"),
        (lambda v: v.update(agreement={"bf16": True}), r"agreement\.bf16 is True"),
        (lambda v: v.update(agreement={"bf17": 1.0}), "agreement is 'bf17', expected some of fp32"),
        (lambda v: v.update(slot=3), "unknown key slot"),
        (lambda v: v["decoder"].update(side=3), r"unknown key decoder\.side"),
        (lambda v: v.update(format=2), "format is 2, expected 1"),
        (lambda v: v.update(name=""), "name is '', expected a name"),
        (lambda v: v.update(license=3), "license is 3, expected a text"),
        (lambda v: v.update(slots="16"), "slots is '16', expected a whole number above 0"),
        (lambda v: v.update(prompt_side=True), "prompt_side is True, expected a whole number"),
        (lambda v: v.update(decoder="decoder.onnx"), "decoder must be an object"),
        (lambda v: v["encoder"].update(side=0), r"encoder\.side is 0"),
        (lambda v: v["encoder"].update(mean=[1, 2]), r"encoder\.mean is \[1, 2\], expected three numbers"),
        (lambda v: v["encoder"].update(std=[1, 0, 1]), r"encoder\.std is .*above 0"),
        (lambda v: v["encoder"].update(resize="cubic"), r"encoder\.resize is 'cubic', expected 'uint8' or 'float'"),
        (lambda v: v["encoder"].update(output=""), r"encoder\.output is ''"),
        (lambda v: v["encoder"].update(file="../encoder.onnx"), r"encoder\.file is .*plain file name"),
        (lambda v: v["encoder"].update(sha256="abc"), r"encoder\.sha256 is 'abc', expected 64"),
        (lambda v: v.update(precisions=["fp32", "int8"]), "precisions is .*int8"),
        (lambda v: v.update(precisions=["fp32", "fp3"]), "precisions is 'fp3'"),
        (lambda v: v.update(precisions="fp32"), "precisions is 'fp32', expected a list"),
        (
            lambda v: v["features"].update(file="encoder.onnx"),
            r"features\.sha256 is .* both are the graph encoder\.onnx",
        ),
        (lambda v: v.update(precision_files=[]), r"precision_files is \[\]"),
        (lambda v: v["decoder"].update(target=1), r"decoder\.target is 1, expected true or false"),
        (lambda v: v["encoder"].update(target=True), r"unknown key encoder\.target"),
        (lambda v: v.update(present=1.5), "present is 1.5, expected a number from 0 to 1"),
        (lambda v: v.update(present=True), "present is True, expected a number"),
        (lambda v: v.update(precision_files={"int8": {"trunk": {}}}), r"precision_files\.int8 is"),
    ],
)
def test_bad_manifest(values: Values, damage: Callable[[Values], object], message: str) -> None:
    damage(values)
    with pytest.raises(BundleError, match=message):
        Manifest.from_dict(values)


def test_int8_of_a_shared_graph_is_shared(shared_folder: Path) -> None:
    manifest = Bundle.open(shared_folder).manifest
    one = FileSpec(file="encoder-int8.onnx", sha256="0" * 64)
    with pytest.raises(BundleError, match=r"precision_files\.int8 is .*expected one file for both"):
        replace(manifest, precisions=("fp32", "int8"), precision_files={"int8": {"encoder": one}})
    good = replace(manifest, precisions=("fp32", "int8"), precision_files={"int8": {"encoder": one, "features": one}})
    assert good.file("encoder", "int8") == one
    assert good.file("decoder", "int8") == manifest.decoder
    assert Manifest.from_dict(json.loads(json.dumps(good.to_dict()))) == good


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere is not a folder"):
        Bundle.open(tmp_path / "nowhere")


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3", b"[" * 100_000])
def test_unreadable_manifest(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"copy: manifest\.json cannot be read: ") as caught:
        Bundle.open(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["encoder.onnx", "features.onnx", "decoder.onnx"])
def test_truncated_file(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"synthetic: file .*{name} is truncated or altered: its SHA-256 is"):
        Bundle.open(copy)


def test_altered_file(copy: Path) -> None:
    path = copy / "encoder.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"encoder\.onnx is truncated or altered"):
        Bundle.open(copy)


def test_missing_file(copy: Path) -> None:
    (copy / "decoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"decoder\.onnx cannot be read: No such file"):
        Bundle.open(copy)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_of(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def with_weights_beside(folder: Path, out: Path) -> Path:
    """Write a bundle again with the weights of both image networks in files beside them."""
    shutil.copytree(folder, out)
    values = json.loads((out / MANIFEST).read_text())
    for role in ("encoder", "features"):
        name, data = values[role]["file"], f"{role}.data"
        model = onnx.load(out / name)
        onnx.save(model, out / name, save_as_external_data=True, location=data, size_threshold=0)
        values[role] |= {"sha256": sha256_of(out / name), "data": data, "data_sha256": sha256_of(out / data)}
    (out / MANIFEST).write_text(json.dumps(values))
    return out


@pytest.mark.parametrize("which", ["graph", "data", "all", "folder"])
def test_links_to_a_hub_s_cache(bundle_folder: Path, tmp_path: Path, which: str, backend: str) -> None:
    """A hub's cache has blobs by their hash, and names that link to them; a volume may be a linked folder."""
    real = with_weights_beside(bundle_folder, tmp_path / "real")
    linked, blobs = tmp_path / "linked", tmp_path / "blobs"
    if which == "folder":
        linked.symlink_to(real)
    else:
        linked.mkdir()
        blobs.mkdir()
        for index, file in enumerate(sorted(real.iterdir())):
            if which == "all" or (which == "data") == (file.suffix == ".data"):
                shutil.copyfile(file, blobs / f"blob{index}")
                (linked / file.name).symlink_to(Path("..") / "blobs" / f"blob{index}")
            else:
                shutil.copyfile(file, linked / file.name)
    image, mask = picture(60, 70)
    masks = []
    for folder in (real, linked):
        with samg_fast.load(folder, backend=backend, device="cpu", threads=1) as segmenter:
            masks.append(segmenter.segment(image, segmenter.identify(image, mask)).mask)
    assert (masks[0] == masks[1]).all()
