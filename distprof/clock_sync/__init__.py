"""Compares the clocks of several hosts while the job runs, on a thread of its own: no rank waits for another one."""
