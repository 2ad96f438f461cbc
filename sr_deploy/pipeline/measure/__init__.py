"""Times of a deployment: one, many, compared."""
