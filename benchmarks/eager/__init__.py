"""The official SAM-G frame in PyTorch eager mode: what everything else is compared with."""
