"""The counted step: work of every module, never timed."""
