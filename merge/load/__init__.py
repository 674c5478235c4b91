"""Reads shards, and reduces them to what the analysis needs of each rank."""
