"""Counts the MACs and flops of every op, and credits them to the module that ran it."""
