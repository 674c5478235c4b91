"""Jobs whose ranks wait for each other, simulated, so that what each did itself is known."""
