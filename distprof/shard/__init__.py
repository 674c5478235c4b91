"""The shard file: framing, encoding and validation of records, its writer and its reader."""
