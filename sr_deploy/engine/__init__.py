"""From a graph to an engine: TensorRT 8.5 … 11 and TensorRT-RTX, ONNX Runtime, and the manifest beside each engine.

Runs on a board: no torch, no onnx, Python 3.8.
"""
