"""The TOML reader of this Python, wherever a file of settings is read."""

from __future__ import annotations

from typing import Any

from sr_deploy.core.errors import MissingPackage


def toml_reader() -> Any:
    """The standard library's reader, or the package it came from."""
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingPackage(
                "this Python has no TOML reader", "Python 3.11, or the package tomli", "pip install tomli"
            ) from error
    return tomllib
