"""Peaks of devices: the makers' figures, what a user gives, and what 'distprof peak' has measured."""
