"""Starts recorded jobs: the front of torchrun, ``distprof exec``, and the last line of a job."""
