"""Official models on reproducible weights: what runs them, and how well that agrees with the eager reference."""
