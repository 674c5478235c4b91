"""The load of experts: which ranks host them, how many tokens they processed, what routers chose."""
