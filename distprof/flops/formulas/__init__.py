"""The flops of each op, a module for each family of ops."""
