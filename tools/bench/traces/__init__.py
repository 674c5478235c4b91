"""One job, recorded by distprof and traced by torch.profiler: what it takes to read both."""
