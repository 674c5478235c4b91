"""The load of experts: where they are, which tokens they got, what routers chose."""
