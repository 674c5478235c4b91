"""Which rank of a node is the slowest again and again, between the windows: looked at some times a second."""
