"""The comparison of two runs as one HTML page, with the look of the report's page; nothing is decided here."""
