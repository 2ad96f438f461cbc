"""Commands that carry a deployment to where it runs: pack and unpack."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from sr_deploy.api import sizes_of
from sr_deploy.cli.shared import (
    BACKENDS,
    DEPLOYMENT,
    JSON_FLAG,
    print_json,
    print_line,
    print_plan,
    say,
    target_names,
)
from sr_deploy.core.contract import parse_bytes, parse_size
from sr_deploy.core.errors import UsageError
from sr_deploy.engine.runtimes import names


def pack(
    deployment: Path = DEPLOYMENT,
    out: Optional[Path] = typer.Option(None, "-o", "--out", help="The bundle to make, such as net.srd."),
    target: Optional[str] = typer.Option(
        None,
        "--target",
        help="any, xavier-nx (TensorRT 8.5) or orin. Default: what it was exported for.",
        autocompletion=target_names,
    ),
    backend: Optional[str] = typer.Option(
        None,
        "--backend",
        help=f"The board builds for {BACKENDS}. Default: the best it has.",
        autocompletion=lambda: list(names()),
    ),
    size: Optional[List[str]] = typer.Option(
        None, "--size", help="The board builds for this fixed input HxW; repeat or separate by commas."
    ),
    min_size: Optional[str] = typer.Option(None, "--min-size", help="Dynamic engine: smallest input HxW."),
    opt_size: Optional[str] = typer.Option(None, "--opt-size", help="Dynamic engine: the input HxW to optimise for."),
    max_size: Optional[str] = typer.Option(None, "--max-size", help="Dynamic engine: largest input HxW."),
    workspace: Optional[int] = typer.Option(None, "--workspace", help="Limit of the builder's workspace, MiB.", min=1),
    memory_budget: Optional[str] = typer.Option(None, "--memory-budget", help="Activations at most, such as 600MB."),
    dla: Optional[int] = typer.Option(None, "--dla", help="Run on this DLA core of a Jetson (0 or 1).", min=0),
    precision: Optional[str] = typer.Option(
        None,
        "--precision",
        help="The board builds this plan of DIR/precision, or fp32. Default: what was built last.",
    ),
    golden_size: Optional[List[str]] = typer.Option(
        None, "--golden-size", help="Add a golden picture of this input HxW, to check the engine of that size with."
    ),
    triton: Optional[Path] = typer.Option(
        None, "--triton", help="Write models for NVIDIA Triton into this model repository (-o is not needed)."
    ),
    name: Optional[str] = typer.Option(
        None, "--name", help="With --triton: the models' name. Default: the deployment folder's."
    ),
    triton_cache: Optional[str] = typer.Option(
        None, "--triton-cache", help="With --triton: folder on the server where it keeps the engines that it builds."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing bundle, or existing models."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be packed, write nothing."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Deployment to one file for a board: graphs, golden pictures, recipe, hashes. Or to a Triton model repository."""
    from sr_deploy.bundle.recipe import Recipe
    from sr_deploy.pipeline.ship.pack import PackOptions, pack_deployment, plan_pack, plan_to_pack
    from sr_deploy.pipeline.ship.triton import TritonOptions, plan_triton, write_triton

    profile = tuple(parse_size(text) for text in (min_size, opt_size, max_size) if text)
    if profile and len(profile) < 3:
        raise UsageError("a dynamic engine needs three sizes", "all of --min-size, --opt-size and --max-size")
    recipe = Recipe(
        backend=backend,
        sizes=sizes_of(size),
        profile=(profile[0], profile[1], profile[2]) if profile else None,
        workspace_mib=workspace,
        memory_budget=parse_bytes(memory_budget) if memory_budget else None,
        dla_core=dla,
        plan=plan_to_pack(deployment, precision),
    )
    if out is None and triton is None:
        raise UsageError("pack needs to know what to make", "-o net.srd, or --triton REPOSITORY, or both")
    if triton is None and (name is not None or triton_cache is not None):
        raise UsageError("--name and --triton-cache describe models for Triton", "them with --triton REPOSITORY")
    bundle_only = {
        "--target": target, "--golden-size": golden_size, "--backend": backend, "--workspace": workspace,
        "--memory-budget": memory_budget, "--dla": dla, "--precision": precision,
    }  # fmt: skip
    unused = [option for option, value in bundle_only.items() if value not in (None, [])]
    if out is None and unused:
        raise UsageError(f"{', '.join(unused)} describes a bundle, not models for Triton", "it with -o net.srd")
    packing = PackOptions(deployment, out, target, recipe, sizes_of(golden_size), force) if out else None
    serving = TritonOptions(deployment, triton, name, recipe, triton_cache, force) if triton else None
    if dry_run:
        print_plan((plan_pack(packing) if packing else []) + (plan_triton(serving) if serving else []), as_json)
        return
    results = []
    if packing:
        results.append(pack_deployment(packing, say).to_dict())
    if serving:
        results.append(write_triton(serving, say).to_dict())
    if as_json:
        print_json(results[0] if len(results) == 1 else {"schema": 1, "results": results})
        return
    for result in results:
        if "bundle" in result:
            say(f"sha256 {result['sha256']}, {result['size']:,} bytes for {result['target']}")
            print_line(result["bundle"])
        else:
            for model in result["models"]:
                print_line(model)


def unpack(
    bundle: Path = typer.Argument(..., help="A bundle made by srdeploy pack.", show_default=False),
    out: Path = typer.Option(..., "-o", "--out", help="The deployment folder to make."),
    sha256: Optional[str] = typer.Option(None, "--sha256", help="Take only the bundle that pack printed this for."),
    build: bool = typer.Option(
        False, "--build", help="Build the engines of the recipe and hold them against the golden pictures."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing folder."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Bundle to deployment, on the board: every byte is compared with the bundle's index first."""
    from sr_deploy.pipeline.ship.unpack import UnpackOptions, unpack_bundle

    unpacked = unpack_bundle(UnpackOptions(bundle, out, sha256, build, force), say)
    if as_json:
        print_json(unpacked.to_dict())
    else:
        if not build:
            say(f"next: {unpacked.next_command()}")
        print_line(unpacked.folder)
    if unpacked.golden is not None:
        unpacked.golden.raise_on_failure()
