"""The recorder of a rank: finds iterations, attaches probes, writes records."""
