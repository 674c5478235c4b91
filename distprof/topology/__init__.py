"""Axes of parallelism, from device meshes, process groups and the script's declaration."""
