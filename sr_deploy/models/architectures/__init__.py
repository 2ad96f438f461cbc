"""The networks that are found by themselves, one family a file: module, keys, shapes."""
