"""A distillation that is under way: the fitted graph and its record beside the folder to be made, and its state."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Dict

from sr_deploy.core.artifact import atomic_file, check_can_write, write_json
from sr_deploy.core.deployment.external_data import check_self_contained
from sr_deploy.core.deployment.records import CompressRecord
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.schema import read_described
from sr_deploy.core.temporary import sweep
from sr_deploy.pipeline.compress.choose import Narrow
from sr_deploy.pipeline.compress.ground import Ground
from sr_deploy.pipeline.compress.request import CompressRequest

NETWORK_NAME, RECORD_NAME = "network.onnx", "step.json"


def folder_of(request: CompressRequest) -> Path:
    """Where the unfinished lies: beside the folder to be made."""
    assert request.out is not None, "check refuses it"
    return request.out.with_name(f"{request.out.name}.unfinished")


def make_room(request: CompressRequest) -> Path:
    """The folder, free for a new one or holding one to go on with.

    Raises:
        UsageError: nothing to resume, or something that took long would be lost.
        EnvironmentFault: the place cannot be written.
    """
    folder = folder_of(request)
    check_can_write(folder)
    sweep(folder.parent)
    there = (folder / RECORD_NAME).is_file()
    if request.resume and not there:
        raise UsageError(f"there is no unfinished compression in {folder}", "one that was interrupted",
                         "start without --resume")  # fmt: skip
    if there and not request.resume and not request.force:
        raise UsageError(
            f"there is an unfinished compression in {folder}", "its place to be free",
            "--resume goes on with it, --force begins again",
        )  # fmt: skip
    if not request.resume:
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def keep(folder: Path, narrow: Narrow) -> None:
    """Write the fitted graph, then its record, which says that both are there; where that fails nothing stays."""
    import onnx

    try:
        with atomic_file(folder / NETWORK_NAME) as temporary:
            onnx.save(narrow.model, str(temporary))
        write_json(folder / RECORD_NAME, dict(narrow.record))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def kept(folder: Path, request: CompressRequest, ground: Ground) -> Narrow:
    """What was kept, if it is of the same request.

    Raises:
        UsageError: it is of another one; the message says what differs.
        BadInput: it is damaged.
    """
    import onnx

    record: CompressRecord = read_described(
        CompressRecord, folder / RECORD_NAME, "step of compression", "begin again with --force", BadInput
    )
    wanted: Dict[str, Any] = {
        "source_sha256": ground.deployment.manifest.graphs[0].sha256,
        "asked": request.asked,
        "importance": request.importance,
        "refitted": request.refit,
        "seed": request.seed,
        "pictures_sha256": ground.pictures_sha256,
    }
    found: Dict[str, Any] = dict(record)
    differing = [f"{name} {found[name]!r}, now {value!r}" for name, value in wanted.items() if found[name] != value]
    if differing:
        raise UsageError(
            f"{folder} is of another compression: " + "; ".join(differing),
            "what that one was started with",
            "give the same again, or begin again with --force",
        )
    path = folder / NETWORK_NAME
    try:
        check_self_contained(path)
        return Narrow(onnx.load(str(path), load_external_data=False), record)
    except Exception as error:  # protobuf's DecodeError has moved between packages
        raise BadInput(
            f"{path} is missing or damaged", "the graph as it was kept", "begin again with --force"
        ) from error
