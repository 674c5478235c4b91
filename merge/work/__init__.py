"""Parameters, flops and utilization of the whole model."""
