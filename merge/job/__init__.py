"""The job as a whole: topology, pipeline stages, one module tree of all ranks."""
