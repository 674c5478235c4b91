"""What is measured while a model runs; a probe is attached for iterations of one kind."""
