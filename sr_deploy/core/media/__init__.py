"""Pictures: files, pixels, resizing."""
