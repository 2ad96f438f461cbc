"""Graph to engines: built, taken again, weighed, within a memory budget."""
