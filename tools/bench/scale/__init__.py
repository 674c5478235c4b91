"""What merging costs: synthetic runs of several sizes, and what one more rank adds (docs/SCALE.md)."""
