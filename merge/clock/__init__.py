"""One clock for all hosts: the offsets that they measured, as lines with bounds, and a check of them by causality."""
