"""Which rank this process is, and which process records a rank."""
