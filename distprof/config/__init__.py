"""The options that a user can set: their table, configuration files, settings of a run."""
