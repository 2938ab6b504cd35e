"""How well a bundle's masks at each precision agree with those at fp32, on the frames that ship.

python -m benchmarks.agreement tiny
"""

from __future__ import annotations

import argparse

from samg_fast.bundle import Bundle
from samg_fast.bundle.zoo import resolve
from samg_fast.export.agreement import measure_agreement


def main() -> None:
    """Print the mean IoU of each precision that can run here."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement", description="Mean IoU of a bundle's masks with those at fp32."
    )
    parser.add_argument("bundle", nargs="?", default="tiny", help="the name or the folder of a bundle")
    parser.add_argument("--frames", type=int, default=32, help="of each of the eight tasks (%(default)s)")
    options = parser.parse_args()
    for kind, figure in measure_agreement(Bundle.open(resolve(options.bundle)), options.frames).items():
        print(f"{kind} {figure:.4f}")


if __name__ == "__main__":
    main()
