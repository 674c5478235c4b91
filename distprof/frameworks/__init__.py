"""Reads from each training stack its process groups, the layout of its parameters, and its experts."""
