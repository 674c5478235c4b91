"""The bytes of a shard: of a timed step, and of the windows of a week."""
