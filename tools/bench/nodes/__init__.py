"""Made-up nodes with daemons and launchers of distprof's own, attached to one store: what that costs the store."""
