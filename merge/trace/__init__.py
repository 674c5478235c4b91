"""From shards to the timelines of all ranks on one clock, as plain data that a trace is written from."""
