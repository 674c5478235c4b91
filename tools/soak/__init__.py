"""Damages shards and their writers, and reports anything that is lost: ``make soak``, ``python -m soak --help``."""
