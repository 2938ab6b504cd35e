"""The examples are scripts: what lies beside one is imported as if it was started."""

from __future__ import annotations

import sys

from support.paths import ROOT

sys.path.append(str(ROOT / "examples"))
