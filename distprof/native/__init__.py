"""The C part: what runs for every module call and every choice of experts; without it, Python does the same."""
