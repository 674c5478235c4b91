"""``make soak``: abuse of shards and of those who write them, until something is lost.  ``python -m soak --help``."""
