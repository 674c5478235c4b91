"""Recording windows of a rank: their plans, who asks for further ones, and what stays of old ones in the shard."""
