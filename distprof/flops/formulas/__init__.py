"""The formulas of ops' work, one module for each family of ops."""
