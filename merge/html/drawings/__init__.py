"""What the page's scripts draw: tables, charts and heat maps, as plain data made from the sections of the report."""
