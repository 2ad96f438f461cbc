"""From a graph to a narrower one: coupled channels, what they are worth, how many stay, weights that make up for it."""
