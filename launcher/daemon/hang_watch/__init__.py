"""Finds out when a job hangs, and why: limits of an iteration, stacks, a graph of who waits for whom, and a verdict."""
