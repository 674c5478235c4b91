"""Code that torch's compiler made: how it runs in a counted step, and which kernels it has."""
