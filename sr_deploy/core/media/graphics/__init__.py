"""Graphics made from a seed: what people show beside photographs, for ranges, fitting and judging."""
