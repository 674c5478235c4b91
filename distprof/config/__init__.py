"""Everything that a user can set: the table of options, configuration files, settings of a run."""
