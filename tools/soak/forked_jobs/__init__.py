"""Small jobs whose ranks are forks of one process, and which parts of the soak record and judge."""
