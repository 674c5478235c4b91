"""Jobs with one planted fault each: records them as real jobs of several ranks, and judges what merge says is slow."""
