"""Accuracy on fresh frames with ground truth; run ``python -m benchmarks.accuracy``."""
