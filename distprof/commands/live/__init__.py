"""The commands for a running job: they read what its daemons say, and ask them for recording windows."""
