"""Training a network from a teacher or from originals: distill and density."""
