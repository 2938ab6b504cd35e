"""Devices that operations run on: the processor and NVIDIA GPUs; and what this machine has of them."""
