"""The recipe: which engines a board shall build, as TOML beside the deployment."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from sr_deploy.bundle.layout import PRECISION_FOLDER, is_allowed
from sr_deploy.core.contract import Size, format_size, parse_size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.toml import toml_reader
from sr_deploy.engine.manifest import BACKENDS, check_profile

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
        BadInput: missing, not TOML, of another schema, with an unknown key or a value that means nothing.
    """
    try:
        raw: Dict[str, Any] = toml_reader().loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the recipe {path}: {error.strerror}", "a recipe of srdeploy pack") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not a recipe: {error}", "TOML", "pack it again") from error
    if raw.pop("schema", None) != SCHEMA:
        raise BadInput(f"{path} is of another schema", f"schema = {SCHEMA}", "pack it again")
    unknown = sorted(set(raw) - {field.name for field in dataclasses.fields(Recipe)})
    if unknown:
        raise BadInput(f"{path} has unknown keys: {', '.join(unknown)}", "the keys of a recipe", "pack it again")
    backend = raw.get("backend")
    numbers = [raw.get(name) for name in _NUMBERS]
    good = all(value is None or (type(value) is int and value >= least) for value, least in zip(numbers, (1, 1, 0)))
    plan = raw.get("plan")
    good = good and (plan is None or (isinstance(plan, str) and is_allowed(f"{PRECISION_FOLDER}/{plan}/plan.json")))
    good = good and (backend is None or backend in BACKENDS) and not ("sizes" in raw and "profile" in raw)
    if not good or not all(isinstance(raw.get(name, []), list) for name in ("sizes", "profile")):
        raise BadInput(f"{path} has a value that means nothing", "values as srdeploy pack writes them", "pack it again")
    try:
        sizes = tuple(parse_size(text) for text in raw.get("sizes", []))
        profile = check_profile([parse_size(text) for text in raw["profile"]]) if "profile" in raw else None
    except (UsageError, AttributeError, TypeError) as error:
        raise BadInput(f"{path} has a size that is none: {error}", 'sizes as "HxW"', "pack it again") from error
    return Recipe(backend, sizes, profile, *numbers, plan)  # type: ignore[arg-type]
