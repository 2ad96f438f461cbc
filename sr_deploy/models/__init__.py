"""Networks as trained, branches and all: known ones in ``architectures/``, one file each, and users' own."""
