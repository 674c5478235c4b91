"""The results of a run in Python: the report of a run, and the run of a process that records itself."""
