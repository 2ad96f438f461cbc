"""Clips and raw frames through a deployment."""
