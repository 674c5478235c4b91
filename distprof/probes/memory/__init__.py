"""Memory of this rank: its peak, and what it is made of."""
