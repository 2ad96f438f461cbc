"""Pictures from files to files: which, in what memory, at the same time, and what of them is finished."""
