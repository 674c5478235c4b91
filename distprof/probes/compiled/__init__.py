"""Code of torch's compiler: how it runs in a counted step, and which kernels it has."""
