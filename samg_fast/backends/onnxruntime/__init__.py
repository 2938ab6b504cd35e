"""The ONNX Runtime backend, the portable one: on CPUs, and on GPUs with its CUDA execution provider."""
