"""srdeploy: from a trained PyTorch super-resolution network to a proved, running, timed TensorRT engine.

Importing this package is light: torch, onnx and TensorRT are imported by the functions that need them.
"""

__version__ = "0.1.0"

__all__ = ["__version__", "fold"]


def __getattr__(name):
    """Import the public Python API on first use, so that ``import sr_deploy`` pulls in no torch."""
    if name == "fold":
        import importlib

        return importlib.import_module("sr_deploy.fold")
    raise AttributeError(f"module 'sr_deploy' has no attribute {name!r}")
