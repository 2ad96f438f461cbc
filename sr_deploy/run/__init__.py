"""Running a graph or an engine: one Runner protocol, one file per runtime. Imports neither torch nor onnx at the top."""
