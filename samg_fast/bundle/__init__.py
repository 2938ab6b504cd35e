"""Bundles: the networks of one configuration as ONNX files, with a manifest that holds all a runtime must know.

A bundle is a folder. `docs/bundle.md` describes the manifest and the ONNX contract.
"""

from samg_fast.bundle.bundle import Bundle, sha256_of
from samg_fast.bundle.manifest import (
    FORMAT,
    MANIFEST,
    PRECISIONS,
    ROLES,
    DecoderSpec,
    FileSpec,
    FittedManifest,
    ImageSpec,
    Manifest,
    NetworkSpec,
    PromptedManifest,
    Resize,
    Role,
    write_manifest,
)

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PRECISIONS",
    "ROLES",
    "Bundle",
    "DecoderSpec",
    "FileSpec",
    "FittedManifest",
    "ImageSpec",
    "Manifest",
    "NetworkSpec",
    "PromptedManifest",
    "Resize",
    "Role",
    "sha256_of",
    "write_manifest",
]
