"""The recipe: which engines a board shall build, as TOML beside the deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from sr_deploy.bundle.layout import is_allowed
from sr_deploy.core.contract import Size, format_size, parse_size
from sr_deploy.core.deployment.manifest import PRECISION_FOLDER
from sr_deploy.core.errors import UsageError
from sr_deploy.core.schema import Count, Positive, SizeText, described, read_described_toml
from sr_deploy.engine.manifest import check_profile
from sr_deploy.engine.runtimes import RuntimeName

SCHEMA = 1
_NUMBERS = ("workspace_mib", "memory_budget", "dla_core")


@dataclass(frozen=True)
class Recipe:
    """What ``srdeploy build`` is asked for on the board; every field has the meaning of build's option.

    Attributes:
        backend: None: the best the board has.
        sizes: fixed inputs (height, width).
        profile: smallest, best and largest input of one dynamic engine; excludes ``sizes``.
        workspace_mib: limit of the builder's scratch memory, MiB.
        memory_budget: bytes of activations at most.
        dla_core: a Jetson's DLA core; None: the GPU.
        plan: folder under ``precision/`` of the plan to build; None: float32.
    """

    backend: Optional[str] = None
    sizes: Tuple[Size, ...] = ()
    profile: Optional[Tuple[Size, Size, Size]] = None
    workspace_mib: Optional[int] = None
    memory_budget: Optional[int] = None
    dla_core: Optional[int] = None
    plan: Optional[str] = None


@described
@dataclass(frozen=True)
class RecipeFile:
    """What stands in ``recipe.toml``; see ``Recipe`` for the other keys.

    Attributes:
        schema: version of this layout.
    """

    schema: int = SCHEMA
    backend: Optional[RuntimeName] = None
    sizes: Optional[Tuple[SizeText, ...]] = None
    profile: Optional[Tuple[SizeText, SizeText, SizeText]] = None
    workspace_mib: Optional[Positive] = None
    memory_budget: Optional[Positive] = None
    dla_core: Optional[Count] = None
    plan: Optional[str] = None

    def __post_init__(self) -> None:
        """Refuse sizes beside a profile, a profile out of order, and a plan that no bundle can hold.

        Raises:
            ValueError: naming the key.
        """
        if self.sizes is not None and self.profile is not None:
            raise ValueError("sizes and profile exclude each other")
        if self.plan is not None and not is_allowed(f"{PRECISION_FOLDER}/{self.plan}/plan.json"):
            raise ValueError("plan: it names no folder of a bundle")
        try:
            check_profile([parse_size(text) for text in self.profile or ("1",) * 3])
        except UsageError as error:
            raise ValueError(f"profile: {error.found}") from error


def build_arguments(recipe: Recipe, folder: str) -> List[str]:
    """The recipe as the arguments of ``srdeploy``, beginning with ``build``."""
    arguments = ["build", folder]
    if recipe.backend is not None:
        arguments += ["--backend", recipe.backend]
    if recipe.sizes:
        arguments += ["--size", ",".join(map(format_size, recipe.sizes))]
    if recipe.profile is not None:
        for name, size in zip(("--min-size", "--opt-size", "--max-size"), recipe.profile):
            arguments += [name, format_size(size)]
    if recipe.workspace_mib is not None:
        arguments += ["--workspace", str(recipe.workspace_mib)]
    if recipe.memory_budget is not None:
        arguments += ["--memory-budget", f"{recipe.memory_budget / 1e6:.6f}MB"]
    if recipe.dla_core is not None:
        arguments += ["--dla", str(recipe.dla_core)]
    if recipe.plan is not None:
        arguments += ["--plan", f"{folder}/{PRECISION_FOLDER}/{recipe.plan}"]
    return arguments


def recipe_text(recipe: Recipe) -> str:
    """The recipe as TOML; what is not asked for is left out."""
    lines = ["# Which engines srdeploy builds from this bundle. Written by srdeploy pack.", f"schema = {SCHEMA}"]
    if recipe.backend is not None:
        lines.append(f'backend = "{recipe.backend}"')
    if recipe.sizes:
        lines.append("sizes = [" + ", ".join(f'"{format_size(size)}"' for size in recipe.sizes) + "]")
    if recipe.profile is not None:
        lines.append("profile = [" + ", ".join(f'"{format_size(size)}"' for size in recipe.profile) + "]")
    for name in _NUMBERS:
        if getattr(recipe, name) is not None:
            lines.append(f"{name} = {getattr(recipe, name)}")
    if recipe.plan is not None:
        lines.append(f'plan = "{recipe.plan}"')
    return "\n".join(lines) + "\n"


def read_recipe(path: Path) -> Recipe:
    """Read ``recipe.toml``.

    Raises:
        BadInput: missing, not TOML, or not as described.
    """
    read = read_described_toml(RecipeFile, path, "recipe", "pack it again")
    sizes = tuple(parse_size(text) for text in read.sizes or ())
    profile = None if read.profile is None else check_profile([parse_size(text) for text in read.profile])
    return Recipe(read.backend, sizes, profile, read.workspace_mib, read.memory_budget, read.dla_core, read.plan)
