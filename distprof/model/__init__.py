"""The models of this rank: their module trees, parameters, MoE layers and place in the job."""
