"""Writes the report's files: JSON, and all files or none."""
