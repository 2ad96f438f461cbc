"""Which type each node of a graph computes in."""
