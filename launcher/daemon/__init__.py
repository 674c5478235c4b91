"""The daemon: one small process on each node, which reads the heartbeat of the ranks and passes requests on to them."""
