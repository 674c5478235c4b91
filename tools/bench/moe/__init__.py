"""The cost of recording the tokens of experts: training steps of mixtures of experts, with and without it."""
