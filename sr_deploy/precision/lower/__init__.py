"""A plan as the graph that a runtime or a builder takes."""
