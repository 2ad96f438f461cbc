"""The TOML reader of this Python, wherever a file of settings is read."""

from __future__ import annotations

import sys
from typing import Any

from sr_deploy.core.errors import MissingPackage


def toml_reader() -> Any:
    """The standard library's reader, or the package it came from."""
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        import tomli
    except ImportError as error:
        raise MissingPackage(
            "this Python has no TOML reader", "Python 3.11, or the package tomli", "pip install tomli"
        ) from error
    return tomli
