"""Two runs side by side: what differs in their set-up, in their times beyond the noise, in their work and verdicts."""
