"""A copy of the run folder at a URL that fsspec knows: object stores and file systems of other machines."""
