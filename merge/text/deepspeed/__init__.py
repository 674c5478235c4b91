"""The blocks that DeepSpeed's flops profiler has, under its names: summary, aggregated and detailed profile."""
