"""The other blocks of the text report, one module each."""
