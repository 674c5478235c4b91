"""Patches of torch's functions, the optimizer hook, and what keeps them out of the script's way."""
