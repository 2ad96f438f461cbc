"""Bundle to deployment on the machine that will run it: unpack, build what the recipe asks for, check it."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from sr_deploy.bundle.layout import INDEX_NAME, RECIPE_NAME, Index
from sr_deploy.bundle.open import unpack, unpacked_before, unpacking
from sr_deploy.bundle.recipe import Recipe, build_arguments, read_recipe
from sr_deploy.core.deployment.manifest import PRECISION_FOLDER
from sr_deploy.core.errors import UsageError
from sr_deploy.core.temporary import sweep
from sr_deploy.core.text import renaming
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.precision.deployed_plan import precision_options
from sr_deploy.pipeline.ship.golden import GoldenOptions, GoldenReport, check_goldens


@dataclass(frozen=True)
class UnpackOptions:
    """What ``srdeploy unpack`` is asked for.

    Attributes:
        bundle: the file.
        out: the deployment folder to make.
        sha256: of the bundle, when it must be one certain one.
        build: build the recipe's engines and hold them against the golden pictures.
        force: replace an existing folder.
    """

    bundle: Path
    out: Path
    sha256: Optional[str] = None
    build: bool = False
    force: bool = False


@dataclass(frozen=True)
class Unpacked:
    """A folder that was made, what its bundle said of itself, its recipe, and the engines and checks asked for."""

    folder: Path
    index: Index
    recipe: Recipe
    engines: List[str]
    golden: Optional[GoldenReport]

    def next_command(self) -> str:
        """What builds the recipe's engines."""
        return "srdeploy " + shlex.join(build_arguments(self.recipe, str(self.folder)))

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "srdeploy": self.index.srdeploy,
            "target": self.index.target,
            "files": [INDEX_NAME, *(member.name for member in self.index.members)],
            "build": build_arguments(self.recipe, str(self.folder)),
            "engines": self.engines,
            **({} if self.golden is None else {"check": self.golden.to_dict()}),
        }


def unpack_bundle(options: UnpackOptions, say: Callable[[str], None] = lambda _: None) -> Unpacked:
    """Unpack; with ``build``, also build and check. What an interrupted one had unpacked and built is taken as it is.

    Raises:
        BadInput, UsageError, EnvironmentFault: see bundle/open.py, pipeline/engines/build.py and golden.py. The
            folder is kept when only the build fails, unless it would replace one: that stays until all is built.
    """
    if options.sha256 is not None and len(options.sha256) != 64:
        raise UsageError(f"{options.sha256!r} is not a sha256", "64 hexadecimal digits, as srdeploy pack prints them")
    bundle, out = options.bundle, options.out
    if not options.build:
        index = unpack(bundle, out, options.force, options.sha256)
        _tell(index, "unpacked", say)
        return Unpacked(out, index, read_recipe(out / RECIPE_NAME), [], None)
    if options.force and out.exists():
        with unpacking(bundle, out, True, options.sha256) as (index, temporary):
            _tell(index, "unpacked", say)
            made = _built(index, temporary, renaming(say, temporary, out))
        return dataclasses.replace(made, folder=out)
    sweep(out.parent)
    before = unpacked_before(bundle, out, options.sha256)
    index = before or unpack(bundle, out, sha256=options.sha256)
    _tell(index, "unpacked before:" if before else "unpacked", say)
    return _built(index, out, say)


def _tell(index: Index, how: str, say: Callable[[str], None]) -> None:
    say(f"{how} {len(index.members)} files for {index.target}, packed by srdeploy {index.srdeploy}")


def _built(index: Index, folder: Path, say: Callable[[str], None]) -> Unpacked:
    """Build what the recipe asks for in an unpacked folder, and check it."""
    recipe = read_recipe(folder / RECIPE_NAME)
    engines = build_engines(build_options(recipe, folder), say)
    report = check_goldens(GoldenOptions(folder, recipe.backend), say)
    return Unpacked(folder, index, recipe, [engine.file for engine in engines], report)


def build_options(recipe: Recipe, folder: Path) -> BuildOptions:
    """The recipe as the options of a build."""
    return BuildOptions(
        deployment=folder,
        backend=recipe.backend,
        sizes=recipe.sizes,
        profile=recipe.profile,
        workspace_bytes=recipe.workspace_mib * 2**20 if recipe.workspace_mib else None,
        memory_budget=recipe.memory_budget,
        dla_core=recipe.dla_core,
        precision=None if recipe.plan is None else precision_options(None, folder / PRECISION_FOLDER / recipe.plan),
        keep=True,
    )
