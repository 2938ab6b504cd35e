"""SAM-G itself: one reference makes a target, and three decodes cut it out of every frame (arXiv 2312.17116)."""
