"""Measuring latency honestly: warm-up, stop rule, sweep over sizes, and the record of it. Runs on Python 3.8."""
