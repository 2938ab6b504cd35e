"""Every operation outside the networks against eager PyTorch; run ``python -m benchmarks.kernels``."""
