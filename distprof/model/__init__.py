"""The models of this rank: module trees, parameters, MoE layers, and the rank's place in the job."""
