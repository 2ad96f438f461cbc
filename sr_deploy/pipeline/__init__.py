"""Joins the stages: one file per command. Only this folder knows the order; it prints nothing and parses nothing."""
