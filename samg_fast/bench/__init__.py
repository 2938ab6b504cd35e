"""Measuring segmenters: latency by turns on the same frames, and where the figures come from."""
