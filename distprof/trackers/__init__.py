"""Hands a report to experiment trackers: TensorBoard, Weights & Biases and MLflow."""
