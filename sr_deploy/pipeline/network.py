"""A network as a file holds it, whatever the file: what export, verify and inspect take. Made by pipeline/load.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from typing_extensions import Literal, Protocol

from sr_deploy.core.contract import IOContract, Size, SizeRules, format_size
from sr_deploy.core.deployment.records import FoldRecord, SourceRecord
from sr_deploy.core.errors import UsageError
from sr_deploy.run.base import Runner

if TYPE_CHECKING:
    import torch

    from sr_deploy.graph.export import Graph
    from sr_deploy.graph.given.network import GivenNetwork
    from sr_deploy.graph.target import Target


class Body(Protocol):
    """The network itself, as far as the kinds of files differ."""

    def runner(self) -> Runner:
        """The network as the file has it: float32 (1, 3, H, W) in its value range, its output not clamped."""

    def folded(self, size: Size, value_range: float, spectral: bool) -> Tuple[Body, FoldRecord]:
        """The network without training-time branches, and the account of what was folded.

        Args:
            size: an input (height, width) that it takes.
            value_range: the value of white.
            spectral: Fourier units too.
        """

    def graph(self, contract: IOContract, path: Path, target: Target, size: Optional[Size], traced: Size,
              pin_reason: str) -> Graph:  # fmt: skip
        """Write it as ONNX.

        Args:
            contract: the float32 tensors at both ends.
            path: the file.
            target: see graph/target.py.
            size: the fixed input (height, width); None: any.
            traced: an input that it takes.
            pin_reason: why Fourier units stay float32.
        """


@dataclass(frozen=True)
class Network:
    """A network and what is known of it.

    Attributes:
        architecture, form, scale, value_range, sizes, hyperparameters, parameters, notes: see models/base.py.
        fixed: the only input (height, width) that it takes; None: any that ``sizes`` allows.
        source: what the manifest keeps, so that the very same network can be loaded again.
        body: the network.
    """

    architecture: str
    form: Literal["training", "folded"]
    scale: int
    value_range: float
    sizes: SizeRules
    fixed: Optional[Size]
    hyperparameters: Dict[str, Any]
    parameters: int
    notes: Tuple[str, ...]
    source: SourceRecord
    body: Body

    def sizes_for(self, asked: Tuple[Size, ...]) -> Tuple[Size, ...]:
        """The fixed inputs to write graphs for; empty: one graph for any size.

        Raises:
            BadImage, UsageError: it does not take one of those that were asked for.
        """
        for size in asked:
            self.sizes.check(size)
            if self.fixed not in (None, size):
                raise UsageError(
                    f"--size {format_size(size)} was asked for, and this graph takes {format_size(self.fixed)} only",
                    f"--size {format_size(self.fixed)}, or none",
                    "export the network with dynamic axes for height and width",
                )
        return asked or (() if self.fixed is None else (self.fixed,))


class ModuleBody:
    """See ``Body``: a checkpoint's network, a PyTorch module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def runner(self) -> Runner:
        """See ``Body``."""
        from sr_deploy.run.torch import TorchRunner

        return TorchRunner(self._module)

    def folded(self, size: Size, value_range: float, spectral: bool) -> Tuple[Body, FoldRecord]:
        """See ``Body``."""
        import dataclasses

        from sr_deploy.fold import fold

        result = fold(self._module, input_size=size, value_range=value_range, spectral=spectral)
        return ModuleBody(result.module), dataclasses.asdict(result.report)  # type: ignore[return-value]  # the fields of FoldReport

    def graph(self, contract: IOContract, path: Path, target: Target, size: Optional[Size], traced: Size,
              pin_reason: str) -> Graph:  # fmt: skip
        """See ``Body``."""
        from sr_deploy.fold.dft import spectral_modules
        from sr_deploy.graph.export import graph_from_model

        pinned = dict.fromkeys(spectral_modules(self._module, (1, 3, *traced)), pin_reason)
        return graph_from_model(self._module, contract, path, target, size, traced, pinned)


class GraphBody:
    """See ``Body``: an ONNX file's network. What folds in it folds on the graph, as in every other."""

    def __init__(self, given: GivenNetwork) -> None:
        self._given = given

    def save(self, path: Path) -> None:
        """Write the graph in its one form, in its own operator set."""
        import onnx

        onnx.save(self._given.model, str(path))

    def runner(self) -> Runner:
        """See ``Body``."""
        from sr_deploy.core.temporary import temporary_folder
        from sr_deploy.run.onnxruntime import runner_from_graph

        contract = IOContract(self._given.value_range, clamped=False)
        with temporary_folder() as folder:
            path = folder / self._given.file.path.name
            self.save(path)
            return runner_from_graph(path, contract, self._given.scale, provider="CPUExecutionProvider")

    def folded(self, size: Size, value_range: float, spectral: bool) -> Tuple[Body, FoldRecord]:
        """See ``Body``."""
        return self, {"blocks": [], "kept": [], "network_error": 0.0}

    def graph(self, contract: IOContract, path: Path, target: Target, size: Optional[Size], traced: Size,
              pin_reason: str) -> Graph:  # fmt: skip
        """See ``Body``."""
        from sr_deploy.graph.given.write import graph_from_given

        return graph_from_given(self._given, contract, path, target, size)
