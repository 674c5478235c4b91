"""Pairs of runs, equal or with one module made slower: records them as real jobs, and judges what diff says of them."""
