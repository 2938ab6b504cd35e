"""Where things are in the checkout, whatever folder a test lies in."""

from __future__ import annotations

from pathlib import Path

__all__ = ["GOLDEN", "ROOT", "SHARED_CLIPS", "TESTS", "TINY"]

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
TINY = ROOT / "samg_fast" / "bundle" / "tiny"
"""The shipped bundle, as it lies in the checkout."""
SHARED_CLIPS = ROOT.parent / "shared" / "dmcgb"
"""The benchmark's clips and colours, where somebody laid them beside the checkout."""
