"""Times and rates: of modules, ranks, pipeline stages and the whole iteration."""
