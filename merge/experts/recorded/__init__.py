"""What single ranks recorded of MoE layers: the experts that they host, their tokens, and what their routers chose."""
