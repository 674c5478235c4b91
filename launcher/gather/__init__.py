"""The shards of all nodes on the first one, through the store of the rendezvous, where they share no run folder."""
