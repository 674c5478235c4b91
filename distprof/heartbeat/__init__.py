"""The heartbeat page: shared memory of one node, in which each rank has a slot that other processes read."""
