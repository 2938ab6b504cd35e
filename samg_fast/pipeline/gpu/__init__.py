"""The frame on a GPU: memory, launches, and what comes out."""
