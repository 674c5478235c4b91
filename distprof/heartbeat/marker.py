"""The file beside a run's settings that asks the first rank of each node to start the daemon.

Every Python process of a job imports this module, so it imports nothing.
"""

DAEMON_BY_RANKS = "daemon-by-ranks"
