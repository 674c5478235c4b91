"""Metrics of the ranks of one node: an endpoint for Prometheus, and a file for node-exporter."""
