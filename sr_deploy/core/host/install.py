"""The command that brings an extra of pyproject.toml, as it was srdeploy itself that was installed."""

from __future__ import annotations

import importlib.metadata
import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Optional

#: Extras whose packages bring PyTorch, or bring one that wants a certain PyTorch.
_WITH_TORCH = {"export", "zoo"}


def pip_install(extras: str) -> str:
    """The command that brings the packages of extras, and leaves alone what is installed.

    Args:
        extras: names in pyproject.toml, by commas.

    Returns:
        It names the folder or repository that srdeploy was installed from, or its name on the index, and holds an
        installed PyTorch at its version: pip would else exchange a build for one kind of GPU for another.
    """
    command = f'pip install "{_source(extras)}"'
    torch = _version("torch") if _WITH_TORCH & set(extras.split(",")) else None
    return command if torch is None else f'{command} "torch=={torch}"'


def _source(extras: str) -> str:
    """What pip is to be given for srdeploy with its extras (PEP 610 says where a distribution came from)."""
    try:
        told = importlib.metadata.distribution("srdeploy").read_text("direct_url.json")
        origin = json.loads(told) if told else {}
        url = origin.get("url", "")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        return f"srdeploy[{extras}]"
    folder = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)) if url.startswith("file:") else None
    if folder is not None and (folder / "pyproject.toml").is_file():
        return f"{folder}[{extras}]"
    kind = origin.get("vcs_info", {}).get("vcs")
    return f"srdeploy[{extras}] @ {kind}+{url}" if kind else f"srdeploy[{extras}]"


def _version(name: str) -> Optional[str]:
    """The version of an installed distribution, None where it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
