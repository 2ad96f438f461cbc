"""Running a graph or an engine: one Runner protocol, one file per runtime. No torch and no onnx at the top of a file."""
