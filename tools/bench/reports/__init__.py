"""Makes tables from measurements: what is measured, how often, with which budget, and the sentences of the page."""
