"""The Experts block: the loads of every MoE layer, and what follows from all of them."""
