"""Running a graph or an engine: one Runner protocol, one file per runtime; torch and onnx only inside functions."""
