"""The counted step: counts the work of every module; it is never timed."""
