"""Whole frames on a GPU against eager PyTorch; run ``python -m benchmarks.gpu``."""
