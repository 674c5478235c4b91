"""Jobs that hang, each in its own way, and jobs that only seem to: what the hang watch says of each of them."""
