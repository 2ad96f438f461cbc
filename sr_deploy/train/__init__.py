"""Training: the loop, its schedule, the state that it can go on from, and the squares it sees."""
