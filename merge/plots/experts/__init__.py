"""The plots of MoE layers: the load of experts and of ep ranks, and how it changes from step to step."""
