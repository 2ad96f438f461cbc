"""Clips: their frames, timestamps and tags, read and written; raw frames through a pipe."""
