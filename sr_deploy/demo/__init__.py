"""The network that ships, in x2 and x4, the picture that shows it, and the script that trained it."""
