"""Starts a recorder in a new Python process, before the script runs."""
