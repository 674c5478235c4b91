"""The timed step: self times of modules, phases of the iteration."""
