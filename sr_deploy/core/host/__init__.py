"""This machine: processor, memory, GPUs, packages, and what they allow."""
