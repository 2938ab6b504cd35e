"""The ONNX Runtime backend, the portable one: on processors, and on GPUs by its CUDA provider."""
