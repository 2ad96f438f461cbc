"""What TensorRT's parser and builder say when they fail, as errors that name node and reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sr_deploy.core.contract import format_size
from sr_deploy.core.errors import BadDeployment, CheckFailed, EnvironmentFault
from sr_deploy.engine.flavour import Messages
from sr_deploy.engine.manifest import Profile

#: What TensorRT and CUDA say when memory runs out.
OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryAllocation|insufficient memory|bad_alloc", re.IGNORECASE)


def parse_failure(parser: Any, messages: Messages, graph: Path, title: str) -> Exception:
    """The parser's errors with node, operator and text."""
    lines = []
    for error in (parser.get_error(index) for index in range(parser.num_errors)):
        if error.code().name == "MODEL_DESERIALIZE_FAILED":
            return BadDeployment(f"{graph} is not an ONNX file that {title} reads", "an ONNX graph", "export it again")
        lines.append(f"{_node(error, messages)}: {error.desc()}")
    return CheckFailed(
        f"{title} cannot parse {graph}\n  " + "\n  ".join(lines or [messages.explain()]),
        "a graph of operators that its parser has",
        "export it again with srdeploy (Fourier units: --spectral fold or dft), or replace the operator in the network",
    )


def _node(error: Any, messages: Messages) -> str:
    """Name and operator of the node an error speaks of. The 8.5 parser gives its number only; its log has the rest."""
    if hasattr(error, "node_name"):
        return f"node {error.node_name()!r} ({error.node_operator()})"
    told = re.compile(rf"parsing node number {error.node()} \[(\w+) -> ([^\]]*)\]")
    found = next(filter(None, (told.search(text) for text in messages.errors())), None)
    return f"node number {error.node()}" + (f" ({found.group(1)} -> {found.group(2)})" if found else "")


def build_failure(messages: Messages, graph: Path, profile: Profile, title: str) -> Exception:
    """Memory, or what the builder said."""
    text = messages.explain()
    what = f"{title} cannot build {graph} for {format_size(profile[2])}: {text}"
    if OUT_OF_MEMORY.search(text):
        return EnvironmentFault(
            what, "enough memory for the builder", "close other programs, give a lower --workspace, or a smaller size"
        )
    return CheckFailed(what, "an engine", "try another size or export the graph again")
