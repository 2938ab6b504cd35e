"""Bundles for NVIDIA Triton Inference Server."""
