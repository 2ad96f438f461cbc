"""Which type each node gets."""
