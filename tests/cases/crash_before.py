"""A script that fails before any model runs, and before it has imported torch."""

# ranks: 2
# event: 0

raise RuntimeError("no data")
