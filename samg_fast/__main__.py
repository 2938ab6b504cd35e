"""``python -m samg_fast`` is the same program as ``samg-fast``."""

from samg_fast.cli import main

if __name__ == "__main__":
    main()
