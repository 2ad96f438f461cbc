"""From a file to named tensors, without ever running code that the file brings."""
