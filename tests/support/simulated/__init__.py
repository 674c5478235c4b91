"""Simulated jobs, whose ranks wait for each other so that what each did itself is known, and a simulated clock."""
