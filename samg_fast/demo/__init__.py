"""The demonstration: what it measures, and the images it draws."""
