"""Axes of parallelism: what device meshes, process groups and the script say of them."""
