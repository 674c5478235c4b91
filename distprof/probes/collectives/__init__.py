"""Collectives, sends and receives of timed steps: where they are seen, and the records made of them."""
