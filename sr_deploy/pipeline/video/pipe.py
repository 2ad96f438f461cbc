"""Raw frames from a pipe through a deployment to another pipe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.media.video.clip import Assumed
from sr_deploy.core.media.video.raw import RawForm, raw_form, raw_of_tensor, read_raw, tensor_of_raw, y4m_form
from sr_deploy.core.media.video.tensor import check_frames
from sr_deploy.core.overlap import ahead, behind
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.runner import resolve, runners
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.pipeline.video.room import check_even, check_frames_fit
from sr_deploy.report.progress import counting
from sr_deploy.run.base import upscale


@dataclass(frozen=True)
class PipeOptions:
    """What ``srdeploy run -i -`` is asked for.

    Attributes:
        deployment: the folder.
        raw: form and WIDTHxHEIGHT of frames without headers; None: YUV4MPEG2.
        assumed: matrix and siting of Y'CbCr.
        full: frames without headers have full range.
        backend, engine, precision: which runtime; see pipeline/runner.py.
        memory, allow_inexact: of tiles, where a frame does not fit; see pipeline/tiling.py.
    """

    deployment: Path
    raw: Optional[Tuple[str, str]] = None
    assumed: Assumed = Assumed()
    full: bool = False
    backend: Optional[str] = None
    engine: Optional[Path] = None
    precision: Optional[str] = None
    memory: Optional[int] = None
    allow_inexact: bool = False


def upscale_pipe(options: PipeOptions, source: BinaryIO, target: BinaryIO,
                 say: Callable[[str], None] = lambda _: None) -> int:  # fmt: skip
    """Every frame of ``source`` to ``target`` in the same form, ``scale`` times as large.

    Frames before a bad one have been written when the error is raised.

    Returns:
        How many frames.

    Raises:
        BadInput: no frames of that form, or that do not fit the network.
        EnvironmentFault: who reads ``target`` has gone, or nothing here can run.
        CheckFailed: a frame without a finite result.
    """
    deployment = open_deployment(options.deployment)
    tiling = tiling_of(options.memory, options.allow_inexact)
    resolved = resolve(EngineIndex(deployment), options.backend, options.engine, options.precision, tiling=tiling)
    contract, scale = deployment.manifest.contract, deployment.manifest.scale
    if options.raw is None:
        form, notes = y4m_form(source, options.assumed)
        for note in notes:
            say(note)
    else:
        form = raw_form(*options.raw, options.assumed, options.full)
    check_frames(contract, form.pixels, form.depth, form.colour, "the pipe")
    check_even(deployment.manifest, form.size)
    check_frames_fit(form.size, contract, scale)
    larger = form.enlarged(scale)

    def write(sr: np.ndarray) -> None:
        target.write(larger.frame_header() + raw_of_tensor(sr, larger, contract))

    try:
        with runners(resolved, say) as runner_at, counting(None, 0, "upscaling") as shown:
            runner = runner_at(form.size)
            target.write(larger.stream_header())
            failed: Optional[BadInput] = None
            with ahead(_tensors(source, form, contract)) as tensors, behind(write) as hand:
                try:
                    for lr in tensors:
                        hand(upscale(runner, lr))
                        shown.advance()
                except BadInput as error:
                    failed = error  # what came before it is written first
            target.flush()
            if failed is not None:
                raise failed
            return shown.made
    except BrokenPipeError as error:
        _silence(target)
        raise EnvironmentFault(
            "nobody reads the frames any more: the pipe of the output is closed",
            "a reader that takes all frames",
            "look at the messages of the program that reads; then give both commands again",
        ) from error


def _tensors(source: BinaryIO, form: RawForm, contract: IOContract) -> Iterator[np.ndarray]:
    for data in read_raw(source, form):
        yield tensor_of_raw(data, form, contract)


def _silence(target: BinaryIO) -> None:
    """Python flushes stdout once more when it ends; what is left goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target.fileno())
    os.close(nowhere)
