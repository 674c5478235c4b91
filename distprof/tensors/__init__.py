"""Finds the tensors in nested values, and counts on a device without waiting for it."""
