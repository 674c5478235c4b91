"""Where ranks disagree, and which one is slow."""
