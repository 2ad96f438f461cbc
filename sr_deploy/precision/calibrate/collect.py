"""What a graph's tensors hold while real pictures go through it: extremes, histograms, means of channels.

ranges = ranges_of("net/model.onnx", patches(arrays))
ranges.tensors["/body/Relu_output_0"].amax
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import Size, picture_size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.media.surface import cut_picture
from sr_deploy.graph.specialise import load_graph
from sr_deploy.precision.calibrate.noise_curve import CUTS, noise_curve
from sr_deploy.precision.calibrate.ranges import BINS, Ranges, TensorStats
from sr_deploy.precision.tensors import floating_activations

#: Side of the squares that are cut out of pictures, in pixels, and how many of each picture.
PATCH, PATCHES = 96, 1
#: Values of one tensor and one input that go into the histogram, at most. The extremes are taken of all.
SAMPLED = 2**17
#: Bytes of tensors that are held at once, roughly. More run in turns.
HELD_BYTES = 2**30

_NOTHING: Callable[[str], None] = lambda _: None  # noqa: E731


def ranges_of(
    model: Union[str, Path, onnx.ModelProto],
    inputs: Iterable[np.ndarray],
    tensors: Optional[Iterable[str]] = None,
    say: Callable[[str], None] = _NOTHING,
    extremes_only: bool = False,
) -> Ranges:
    """Run a graph over inputs and gather the statistics of its tensors.

    Args:
        model: a float graph with one input, as a file or in memory; dynamic, or static and then of the inputs' size.
        inputs: arrays as the graph takes them: float32 (1, 3, H, W) in the contract's value range, or uint8
            (1, H, W, 3); ``patches`` cuts them out of pictures. They are gone through once.
        tensors: which ones, by name; None takes every float tensor that follows from the picture, its own input
            included.
        say: told how far it is, at every tenth input.
        extremes_only: leave out histograms, channels and what cuts would cost (noise_curve.py): most of the time.

    Returns:
        Statistics of each tensor, in the graph's order.

    Raises:
        BadInput: there are no inputs, or the graph does not take one of them.
        UsageError: the graph has no tensor of that name, or not of floats.
        BadDeployment: not an ONNX file.
    """
    proto, digest = _loaded(model)
    here = floating_activations(proto)
    asked = set(here if tensors is None else tensors)
    unknown = sorted(asked - set(here))
    if unknown:
        raise UsageError(
            f"the graph has no float tensor {unknown[0]!r} that follows from its input", "names of its activations"
        )
    wanted = [name for name in here if name in asked]
    running = {name: _Running(extremes_only) for name in wanted}
    exposed: Optional[Exposed] = None
    seen = 0
    for array in inputs:
        if exposed is None:
            exposed = Exposed(proto, wanted, picture_size(array))
        for name, values in exposed.run(array):
            running[name].add(values)
        seen += 1
        if seen % 10 == 0:
            say(f"{seen} inputs")
    if not seen:
        todo = "name a folder of photographs with --images"
        raise BadInput("no picture was given, so there are no ranges", "real pictures", todo)
    return Ranges({name: one.stats() for name, one in running.items()}, digest, seen)


def patches(
    arrays: Iterable[np.ndarray],
    side: Union[int, Size] = PATCH,
    each: int = PATCHES,
    seed: int = 0,
    multiple: int = 1,
) -> Iterator[np.ndarray]:
    """Squares cut out of pictures: the same ones for the same seed. Small pictures stay as large as they are.

    Args:
        arrays: as graphs take them, in any form of core/contract.py, any sizes.
        side: of a square, pixels, or its (height, width); a picture that is shorter one way is cut to what it has.
        each: squares from one picture, at random places; the first of every other picture is at its centre.
        seed: of the places.
        multiple: heights and widths are multiples of this.

    Raises:
        UsageError: ``side`` below ``multiple``, or ``each`` below 1.
    """
    wanted = (side, side) if isinstance(side, int) else side
    if each < 1 or min(wanted) < multiple:
        raise UsageError(f"{each} patches of {side} pixels cannot be cut", f"1 or more, of at least {multiple} pixels")
    random = np.random.default_rng(seed)
    for index, array in enumerate(arrays):
        size = picture_size(array)
        cut = [min(part, length) // multiple * multiple for part, length in zip(wanted, size)]
        for number in range(each):
            room = [length - part for length, part in zip(size, cut)]
            centre = number == 0 and index % 2 == 0
            start = [space // 2 if centre else int(random.integers(0, space + 1)) for space in room]
            yield cut_picture(array, (start[0], start[1]), (cut[0], cut[1]))


class Exposed:
    """A graph in ONNX Runtime that gives any of its tensors, not only its output.

    Args:
        model: the graph; not modified.
        names: the tensors it shall give.
        size: an input (height, width) by which the memory they take is judged.
        exact: run every node as written, without fusions; slower.
    """

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], size: Size, exact: bool = False) -> None:
        self._input = model.graph.input[0].name
        self._given = self._input in names
        asked = [name for name in names if name != self._input]
        self._turns = _turns(asked, _bytes_of(model, size))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Between two nodes a thread sleeps instead of turning in circles: others may need the processor.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL if exact else level.ORT_ENABLE_EXTENDED
        self._sessions: List[Any] = []
        for turn in self._turns:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            del copy.graph.output[:]
            copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in turn)
            self._sessions.append(
                onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
            )

    def run(self, array: np.ndarray) -> Iterator[Tuple[str, np.ndarray]]:
        """Each tensor's name and values for this input, in order.

        Raises:
            BadInput: the graph does not take it.
        """
        if self._given:
            yield self._input, array
        for session, turn in zip(self._sessions, self._turns):
            try:
                results = session.run(turn, {self._input: array})
            except Exception as error:  # ONNX Runtime's exceptions have no common base below Exception
                reason = " ".join(str(error).split())
                raise BadInput(
                    f"the graph does not run on an input of {'x'.join(map(str, array.shape))}: {reason}",
                    "pictures or patches of a size that the graph takes",
                    "leave small pictures out of the folder, or export without --size",
                ) from error
            # Popped, so that each is free again before the next is looked at.
            results.reverse()
            for name in turn:
                yield name, results.pop()


def _turns(names: Sequence[str], sizes: Dict[str, int]) -> List[List[str]]:
    """Names in groups that together take about HELD_BYTES; a tensor of unknown size counts as the others' mean."""
    unknown = sum(sizes.values()) // max(len(sizes), 1)
    turns: List[List[str]] = []
    held = 0
    for name in names:
        size = sizes.get(name, unknown)
        if not turns or held + size > HELD_BYTES:
            turns.append([])
            held = 0
        turns[-1].append(name)
        held += size
    return turns


def _bytes_of(model: onnx.ModelProto, size: Size) -> Dict[str, int]:
    """Bytes of the tensors for an input of ``size``, as far as shape inference knows them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    dims = copy.graph.input[0].type.tensor_type.shape.dim
    first = 1 if copy.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8 else 2
    if len(dims) == 4:
        dims[first].dim_value, dims[first + 1].dim_value = size
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return {}
    found = {}
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        shape = value.type.tensor_type.shape.dim
        if shape and all(dim.HasField("dim_value") for dim in shape):
            found[value.name] = 4 * math.prod(dim.dim_value for dim in shape)
    return found


class _Running:
    """The statistics of one tensor while inputs go through."""

    def __init__(self, extremes_only: bool = False) -> None:
        self.extremes_only = extremes_only
        self.minimum, self.maximum = math.inf, -math.inf
        self.histogram = np.zeros(BINS, np.int64)
        self.top = 0.0
        self.zeros = self.count = self.non_finite = 0
        self.noise, self.pictures = np.zeros(len(CUTS)), 0
        self.sums: Optional[np.ndarray] = None
        self.amaxes: Optional[np.ndarray] = None
        self.pixels = 0
        self.has_channels = not extremes_only

    def add(self, values: np.ndarray) -> None:
        """One more input's values."""
        self.count += values.size
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(values)
            self.non_finite += int(values.size - np.count_nonzero(finite))
            self.has_channels = False
            values = values[finite]
            if values.size == 0:
                return
            low, high = float(values.min()), float(values.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if self.extremes_only:
            return
        self._grow(max(abs(low), abs(high)))
        self._count_sample(values)
        self._channels(values)

    def _grow(self, amax: float) -> None:
        """Make the histogram reach above ``amax``: bins are merged in pairs, so one pass over the inputs suffices."""
        if amax == 0.0:
            return
        top = math.ldexp(1.0, math.frexp(amax)[1])
        if self.top == 0.0:
            # Until now all values were zeros, and those lie in the first bin whatever its width.
            self.top = top
        while self.top < top:
            pairs = self.histogram.reshape(-1, 2).sum(axis=1)
            self.histogram = np.concatenate([pairs, np.zeros(BINS // 2, np.int64)])
            self.top *= 2.0

    def _count_sample(self, values: np.ndarray) -> None:
        flat = values.reshape(-1)
        # An odd step does not meet the same columns again and again in rows of even width.
        step = max(1, -(-flat.size // SAMPLED)) | 1 if flat.size > SAMPLED else 1
        self.noise += noise_curve(flat[::step])
        self.pictures += 1
        sample = np.abs(flat[::step].astype(np.float64))
        self.zeros += int(sample.size - np.count_nonzero(sample))
        if self.top == 0.0:
            self.histogram[0] += sample.size
            return
        self.histogram += np.bincount((sample * (BINS / self.top)).astype(np.int64), minlength=BINS)

    def _channels(self, values: np.ndarray) -> None:
        if not self.has_channels or values.ndim != 4:
            self.has_channels = False
            return
        sums = values.sum(axis=(0, 2, 3), dtype=np.float64)
        amaxes = np.maximum(values.max(axis=(0, 2, 3)), -values.min(axis=(0, 2, 3))).astype(np.float64)
        if self.sums is None or self.amaxes is None:
            self.sums, self.amaxes = sums, amaxes
        elif self.sums.shape != sums.shape:
            # Axis 1 changes with the picture's size: it is not the channels.
            self.has_channels = False
            return
        else:
            self.sums, self.amaxes = self.sums + sums, np.maximum(self.amaxes, amaxes)
        self.pixels += values.size // values.shape[1]

    def stats(self) -> TensorStats:
        """What was seen."""
        mean, amax = np.zeros(0), np.zeros(0)
        if self.has_channels and self.sums is not None and self.amaxes is not None:
            mean, amax = self.sums / self.pixels, self.amaxes
        return TensorStats(
            minimum=self.minimum if math.isfinite(self.minimum) else 0.0,
            maximum=self.maximum if math.isfinite(self.maximum) else 0.0,
            histogram=self.histogram,
            top=self.top,
            zeros=self.zeros,
            channel_mean=mean,
            channel_amax=amax,
            count=self.count,
            non_finite=self.non_finite,
            # As its file holds it, so that a scale is the same before and after.
            noise=(self.noise / self.pictures).astype(np.float32).astype(np.float64) if self.pictures else np.zeros(0),
        )


def _loaded(model: Union[str, Path, onnx.ModelProto]) -> Tuple[onnx.ModelProto, str]:
    """The graph and its sha256."""
    if isinstance(model, onnx.ModelProto):
        return model, hashlib.sha256(model.SerializeToString()).hexdigest()
    return load_graph(Path(model)), sha256_of(Path(model))
