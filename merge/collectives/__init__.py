"""The collectives of all ranks, joined: who waited for whom, and what time is a rank's own."""
