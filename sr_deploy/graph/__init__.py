"""The ONNX graph: export (the only torch.onnx call), fixing its size, census, what each target accepts."""
