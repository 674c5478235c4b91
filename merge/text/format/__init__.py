"""Lines, tables, colours and shortened names of the text report."""
