"""The variables in which launchers tell a process its rank and the world size."""

from __future__ import annotations

#: Of torchrun, Open MPI, MPICH and Slurm.
RANK_AND_SIZE = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
