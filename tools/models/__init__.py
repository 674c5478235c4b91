"""docs/MODELS.md: the work of known models, counted by distprof and by DeepSpeed (``python -m models``)."""
