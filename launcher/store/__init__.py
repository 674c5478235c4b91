"""The key-value store of torchrun's rendezvous, through which the nodes of a job speak: the launcher is connected to
it, and passes on what the daemon asks, so that the daemon needs no torch.
"""
