"""Starts recorded jobs with torchrun or another launcher, and writes the last line of a job."""
