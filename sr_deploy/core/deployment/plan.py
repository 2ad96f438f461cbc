"""The precision plan: what type every node of a graph computes in, why, and with which scales.

``plan.json`` is its form. A plan is readable, can be compared with ``diff``, edited by hand and given back with
``build --plan``. It belongs to one float32 graph, named by its sha256. Weights that were changed to suit INT8 lie
beside it, in ``weights.npz``.
"""

from __future__ import annotations

import dataclasses
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_file, sha256_of, write_json
from sr_deploy.core.deployment.target import Target
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.number_formats import FLOAT8, FLOAT16, INT8, QUANTISED, FloatName, FormatName, PlanPrecision
from sr_deploy.core.schema import ExactFactor, QuantScale, Sha256, described, read_described
from sr_deploy.core.temporary import put_back
from sr_deploy.core.text import plain

PLAN_NAME = "plan.json"
WEIGHTS_NAME = "weights.npz"
SCHEMA = 1
#: The largest magnitude of a quantised value.
INT8_MAX = int(INT8.largest)


@described
@dataclass(frozen=True)
class Plan:
    """Types and scales for one graph.

    Attributes:
        precision: what was asked for, one of PLAN_PRECISIONS.
        graph_sha256: the float32 graph that the plan is for.
        nodes: node name → a name of core/number_formats.py. An "int8" or "float8" Conv or ConvTranspose reads its input
            and its weights in 8 bits and gives ``rest``; an "int8" Add reads its skip input in 8 bits, so that it fuses
            with the convolution before it. Nodes that only compute with shapes are not listed.
        rest: "float16", "bfloat16" or "float32": what nodes of 8 bits give, and the type of their biases.
        reasons: node name → why it has a wider type than was asked for. Every such node has one.
        activation_scales: tensor name → scale: a value x is stored as clip(round(x / scale), -127, 127). Every tensor
            that an INT8 node reads has one.
        float8_scales: the same for tensors that a "float8" node reads: x is stored as x / scale rounded to FP8, at most
            ±448.
        weight_scales: constant name → one scale for each output channel. Nodes of one constant are of one type, if of
            8 bits.
        channel_factors: tensor name → one factor for each of its channels: INT8 convolutions read the tensor divided by
            them (its scale is of that), and their weights are multiplied by them along the input channels, before they
            are quantised (their scales are of that). Together they change nothing, and channels of very different size
            get steps that suit each. Powers of two, so that neither is rounded.
        calibration: images, method and hash that the scales follow from; empty for "fp16".
        notes: what was done to the weights, what the search gave up, ….
        weights_sha256: of ``weights.npz``; None when the graph's own weights are used.
        target: what it was made for; None: for all that have its types.
        schema: version of this layout.
    """

    precision: PlanPrecision
    graph_sha256: Sha256
    nodes: Dict[str, FormatName]
    rest: FloatName = FLOAT16.name
    reasons: Dict[str, str] = field(default_factory=dict)
    activation_scales: Dict[str, QuantScale] = field(default_factory=dict)
    weight_scales: Dict[str, Tuple[QuantScale, ...]] = field(default_factory=dict)
    calibration: Dict[str, Any] = field(default_factory=dict)
    notes: Tuple[str, ...] = ()
    weights_sha256: Optional[Sha256] = None
    float8_scales: Dict[str, QuantScale] = field(default_factory=dict)
    target: Optional[Target] = None
    channel_factors: Dict[str, Tuple[ExactFactor, ...]] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def quantised(self) -> Tuple[str, ...]:
        """Names of the nodes that read 8 bits, in the plan's order."""
        narrow = {one.name for one in QUANTISED}
        return tuple(name for name, have in self.nodes.items() if have in narrow)

    @property
    def formats(self) -> Tuple[str, ...]:
        """Names of the formats that it has, each once."""
        return tuple(dict.fromkeys((*self.nodes.values(), self.rest)))

    def scales_of(self, dtype: str) -> Dict[str, float]:
        """Tensor → scale, of the tensors that nodes of this 8-bit type read."""
        return self.float8_scales if dtype == FLOAT8.name else self.activation_scales

    def nodes_of(self, dtype: str) -> Tuple[str, ...]:
        """Names of the nodes with this type, in the plan's order."""
        return tuple(name for name, have in self.nodes.items() if have == dtype)


def save_plan(folder: Path, plan: Plan, weights: Optional[Mapping[str, np.ndarray]] = None) -> Plan:
    """Write ``plan.json`` (and ``weights.npz``) into an existing folder, each whole or not at all.

    Args:
        folder: where.
        plan: what to write; its ``weights_sha256`` is replaced by that of the file written here.
        weights: constant name → float32 array that replaces it in the graph; None or empty writes no file.

    Returns:
        The plan as written.

    Raises:
        DiskFull, EnvironmentFault: it cannot be written.
    """
    digest = None
    if weights:
        path = Path(folder) / WEIGHTS_NAME
        # Names of tensors hold slashes, which npz would take for folders: they are numbered, and the names listed.
        arrays = {f"array_{index}": np.asarray(value, np.float32) for index, value in enumerate(weights.values())}
        with atomic_file(path) as temporary, open(temporary, "wb") as stream:
            # The stub takes any key of ``arrays`` for its word allow_pickle, which numpy before 2 does not have.
            np.savez(stream, names=np.asarray(list(weights)), **arrays)  # type: ignore[arg-type]
        digest = sha256_of(path)
    plan = dataclasses.replace(plan, weights_sha256=digest)
    write_json(Path(folder) / PLAN_NAME, dataclasses.asdict(plan))
    return plan


def plan_file(path: Path) -> Path:
    """The plan's file, of a path that names it or its folder; see ``put_back`` for one that is missing."""
    put_back(Path(path).parent if Path(path).name == PLAN_NAME else Path(path))
    return Path(path) / PLAN_NAME if Path(path).is_dir() else Path(path)


def open_plan(path: Path) -> Tuple[Plan, Dict[str, np.ndarray]]:
    """Read a plan and the weights beside it.

    Args:
        path: a plan file, or the folder that holds ``plan.json``.

    Returns:
        The plan, and constant name → float32 array of the weights it replaces.

    Raises:
        BadDeployment: missing, not as described, or altered weights.
    """
    path = plan_file(path)
    if not path.is_file():
        raise BadDeployment(f"there is no plan {path}", "a plan.json", "srdeploy build DIR --precision int8 writes one")
    plan = read_described(Plan, path, "precision plan", "make the plan again", BadDeployment)
    return plan, _weights(path.parent / WEIGHTS_NAME, plan)


def _weights(path: Path, plan: Plan) -> Dict[str, np.ndarray]:
    if plan.weights_sha256 is None:
        return {}
    if not path.is_file() or sha256_of(path) != plan.weights_sha256:
        raise BadDeployment(
            f"{path} is missing or not the file that the plan names", plan.weights_sha256[:12] + "…", "make it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            # save_plan packs nothing, so what is read is never larger than the file.
            if any(info.file_size > info.compress_size for info in archive.infolist()):
                raise ValueError("its arrays are compressed")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {str(name): stored[f"array_{index}"] for index, name in enumerate(stored["names"])}
            sick = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        found = f"{path} cannot be read: {plain(str(error))}"
        raise BadDeployment(found, "weights that belong to a plan", "make it again") from error
    if sick:
        raise BadDeployment(
            f"{path} holds weights that are not finite: {', '.join(sick[:5])}",
            "finite weights",
            "make the plan again with --remake-plan",
        )
    return arrays
