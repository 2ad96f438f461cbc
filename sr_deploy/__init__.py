"""srdeploy: from a trained PyTorch super-resolution network to a proved, running, timed TensorRT engine.

Importing this package is light: torch, onnx and TensorRT are imported by the functions that need them.
"""

__version__ = "0.1.0"

__all__ = ["__version__", "build", "export", "fold", "open"]


def __getattr__(name):
    """Import the public Python API on first use, so that ``import sr_deploy`` pulls in no torch."""
    import importlib

    if name == "fold":
        return importlib.import_module("sr_deploy.fold")
    if name in ("export", "build", "open"):
        return getattr(importlib.import_module("sr_deploy.api"), name)
    raise AttributeError(f"module 'sr_deploy' has no attribute {name!r}")
