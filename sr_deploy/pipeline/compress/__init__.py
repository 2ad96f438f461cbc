"""``srdeploy compress``: a deployment → one of a narrower network."""
