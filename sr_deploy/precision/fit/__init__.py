"""Weights and scales made to suit INT8."""
