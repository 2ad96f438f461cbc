"""``srdeploy density``: how dense a network must be, and the shape of the smaller one that follows."""

from __future__ import annotations

import copy
import dataclasses
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.core.artifact import atomic_file, sha256_of, write_json
from sr_deploy.core.contract import round_up
from sr_deploy.core.errors import UsageError
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.pipeline.train.distill import check_places, record_of
from sr_deploy.pipeline.train.settle import freeze
from sr_deploy.pipeline.train.student import Student, student_of, training_of
from sr_deploy.pipeline.training import torch_device

if TYPE_CHECKING:
    from sr_deploy.train.density import DensityLearner
    from sr_deploy.train.shape import Reading, Shape

#: In the file and in its record.
MADE_BY = "srdeploy density"
#: Columns of a terminal that nobody made wider.
WIDTH = 80
#: Share of the steps that are proximal, and of the schedule at which the rate is halved (CDISM's code).
_PROXIMAL, _HALVINGS = 0.1, (0.2,)


@dataclass(frozen=True)
class Choices:
    """How the equations are read; see train/shape.py.

    Attributes:
        root: "square" or "cube"; None: both.
        roundings: "blocks=floor,layers=ceil,…"; what is not there is shown in all ways.
        of: "blocks=16,layers=1,channels=64", the original; "": the checkpoint's.
    """

    root: Optional[str] = None
    roundings: str = ""
    of: str = ""


@dataclass(frozen=True)
class DensityRequest:
    """What ``srdeploy density`` is asked for, where it trains.

    Attributes:
        checkpoint: the network.
        out: the .safetensors file of the sparse network.
        images: low-resolution pictures; the network's own output is followed.
        hr: originals, of ``images`` or to be made smaller; they are followed, as in the paper.
        load: how to load the network.
        steps, batch, patch, seed, device: see train/distill.py.
        rate, penalty: of OBProx-SG.
        deep: how the names of the deep-feature part begin; () takes the architecture's.
        choices: how the equations are read.
        resume, force: as of distill.
    """

    checkpoint: Path
    out: Path
    images: Optional[Path] = None
    hr: Optional[Path] = None
    load: LoadOptions = field(default_factory=LoadOptions)
    steps: int = 2000
    batch: int = 4
    patch: int = 48
    rate: float = 5e-3
    penalty: float = 1e-4
    deep: Tuple[str, ...] = ()
    choices: Choices = Choices()
    judge_every: int = 200
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    force: bool = False

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            UsageError: a number out of its range, or another suffix.
        """
        if self.out.suffix != ".safetensors":
            raise UsageError(f"-o {self.out} is no .safetensors file", "such as -o sparse.safetensors")
        limits = (("steps", self.steps, 10), ("batch", self.batch, 1), ("patch", self.patch, 8),
                  ("judge-every", self.judge_every, 1))  # fmt: skip
        for name, number, least in limits:
            if number < least:
                raise UsageError(f"--{name} {number} is too small", f"{least} or more")
        for name, share in (("rate", self.rate), ("penalty", self.penalty)):
            if not 0 < share < 1:
                raise UsageError(f"--{name} {share:g} is too much, too little or no number", "between 0 and 1")
        if self.resume and self.force:
            raise UsageError("--resume and --force contradict each other", "one of them", "leave one of them out")


def made_sparse(request: DensityRequest, say: Callable[[str], None] = lambda _: None) -> Dict[str, Any]:
    """Train under an L1 penalty, write the sparse network and its record, and give the record.

    Raises:
        UsageError: see DensityRequest.check; a part or a shape that is not known.
        BadInput: no, too few or too small pictures; a checkpoint that cannot be read.
        CheckFailed: the training diverged.
    """
    from sr_deploy.train.density import DensityLearner, Sparsity
    from sr_deploy.train.distill import DistillOptions, Lesson
    from sr_deploy.train.loop import Course, train
    from sr_deploy.train.losses.table import terms_of
    from sr_deploy.train.schedule import Schedule

    request.check()
    state = request.out.with_name(request.out.name + ".state")
    places = (request.out, record_of(request.out))
    check_places(places, state, request.resume, request.force, (request.checkpoint,))
    device = torch_device(request.device)
    student = student_of(request.checkpoint, request.load, (), None, request.seed)
    original = original_of(request.choices.of, student)
    read = _readings(request.choices)
    student.proved()
    teacher = None if request.hr is not None else copy.deepcopy(student.loaded.module)
    freeze(student)
    material = _material(request, student)
    rules, white = student.loaded.sizes, student.loaded.value_range
    patch = round_up(max(request.patch, rules.minimum), rules.multiple)
    if patch != request.patch:
        raise UsageError(f"--patch {request.patch} does not fit the network", f"such as --patch {patch}")
    options = DistillOptions(
        terms_of("charbonnier"), batch=request.batch, patch=patch, multiple=rules.multiple, seed=request.seed,
        device=device, judged_patch=round_up(96, rules.multiple),
    )  # fmt: skip
    deep = request.deep or training_of(student.loaded).deep
    sparsity = Sparsity(deep, max(1, int(_PROXIMAL * request.steps)), request.rate, request.penalty)
    lesson = Lesson(student.loaded.module, white, material.lows, material.highs, teacher, white)
    learner = DensityLearner(lesson, options, sparsity)
    settings = {
        "steps": request.steps, "batch": request.batch, "patch": patch, "seed": request.seed, "source": student.source,
        "follows": "the network's own output" if teacher is not None else "originals",
        "rate": sparsity.rate, "penalty": sparsity.penalty, "least": sparsity.least,
        "proximal_steps": sparsity.proximal_steps, "deep": list(deep),
    }  # fmt: skip
    say(f"{student.about}; {', '.join(deep)}; {material.about}; it follows {settings['follows']}")
    keeping = _keeping(state, settings, material.sha256s, learner)
    schedule = Schedule(request.steps, None, 0, 0.0, _HALVINGS)
    end = train(learner, Course(schedule, request.judge_every, keeping), request.resume, say)
    record = _written(request.out, student, learner, {**settings, "seconds": round(end.seconds, 1)})
    state.unlink()
    return {**record, **shape_record(record["density"], original, read)}


def shape_record(density: float, original: Optional[Shape], read: Tuple[Reading, ...]) -> Dict[str, Any]:
    """The shapes that a density gives, as plain values; nothing where the original's shape is not known."""
    from sr_deploy.train.shape import derived, shapes

    if original is None:
        return {"original": None, "shapes": []}
    found = []
    for shape, ways in shapes(density, original, read).items():
        exact = derived(density, original, ways[0]).exact
        found.append({
            **dataclasses.asdict(shape),
            "exact": dict(zip(("blocks", "layers", "channels"), (round(value, 3) for value in exact))),
            "readings": [dataclasses.asdict(way) for way in ways],
        })  # fmt: skip
    return {"original": dataclasses.asdict(original), "shapes": found}


def calculated(density: float, choices: Choices) -> Dict[str, Any]:
    """What ``--density`` alone gives.

    Raises:
        UsageError: no original, or choices that there are not.
    """
    original = original_of(choices.of, None)
    if original is None:
        raise UsageError(
            "--density alone needs the shape of the original", "--of blocks=16,layers=1,channels=64 (EDSR-baseline)",
            "SwinIR-lightweight is --of blocks=4,layers=6,channels=60",
        )  # fmt: skip
    return {"density": density, **shape_record(density, original, _readings(choices))}


def shape_lines(record: Mapping[str, Any]) -> List[str]:
    """The shapes for people, each with the choices that lead to it, in lines of at most WIDTH characters."""
    if record["original"] is None:
        return _wrapped(
            "the original's shape is not known here: --of blocks=N,layers=N,channels=N gives the smaller one", 0
        )
    lines = _wrapped(f"density {record['density']:.4f} of {_shape_text(record['original'])} gives", 0)
    for shape in record["shapes"]:
        exact = shape["exact"]
        rounded = f"{exact['channels']:.2f}, {exact['layers']:.2f}, {exact['blocks']:.2f} before rounding"
        lines += _wrapped(f"{_shape_text(shape)}; {rounded}", 2) + _wrapped(_choices_text(shape["readings"]), 4)
    return lines


def _wrapped(text: str, indent: int) -> List[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))


def original_of(text: str, student: Optional[Student]) -> Optional[Shape]:
    """The shape of the original: as ``--of`` says, or the checkpoint's; None where neither tells.

    Raises:
        UsageError: ``--of`` is no shape.
    """
    from sr_deploy.train.shape import PARTS, Shape

    if text:
        given = _pairs_of(text, "--of")
        if set(given) != set(PARTS) or not all(value.isdigit() for value in given.values()):
            raise UsageError(f"--of {text} is no shape", "all of blocks=16,layers=1,channels=64")
        return Shape(**{part: int(given[part]) for part in PARTS})
    if student is None:
        return None
    known = student.loaded.hyperparameters
    if student.loaded.architecture == "EDSR":
        return Shape(known["blocks"], 1, known["width"])
    if student.loaded.architecture == "SwinIR" and len(set(known["depths"])) == 1:
        return Shape(len(known["depths"]), known["depths"][0], known["width"])
    return None


def _readings(choices: Choices) -> Tuple[Reading, ...]:
    from sr_deploy.train.shape import readings

    return readings(choices.root, _pairs_of(choices.roundings, "--round") if choices.roundings else {})


def _pairs_of(text: str, option: str) -> Dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and value for name, _, value in pairs):
        raise UsageError(f"{option} {text} is no list of NAME=VALUE", "such as blocks=16,layers=1,channels=64")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _shape_text(shape: Mapping[str, Any]) -> str:
    return f"({shape['channels']} channels, {shape['layers']} layers, {shape['blocks']} blocks)"


def _choices_text(ways: Sequence[Mapping[str, str]]) -> str:
    """What must be chosen: where every value of a choice leads here, that choice is left out."""
    from sr_deploy.train.shape import ROOTS, ROUNDINGS

    parts = []
    for name, all_values in (("root", ROOTS), *((part, ROUNDINGS) for part in ("blocks", "layers", "channels"))):
        values = list(dict.fromkeys(way[name] for way in ways))
        if len(values) < len(all_values):
            parts.append(f"{name} {' or '.join(values)}")
    return ", ".join(parts) or "any choice"


def _material(request: DensityRequest, student: Student) -> Any:
    from sr_deploy.pipeline.train.pictures import material_of

    if request.images is None and request.hr is None:
        raise UsageError("there is nothing to train on", "low-resolution pictures, or originals", "--images or --hr")
    return material_of(request.images, request.hr, student.loaded.scale)


def _keeping(file: Path, settings: Dict[str, Any], pictures: Tuple[str, ...], learner: DensityLearner) -> Any:
    from sr_deploy.train.state import Keeping, key_of

    weights = [value.detach().cpu().float().numpy() for value in learner.student.state_dict().values()]
    key = key_of([settings, pictures], weights)
    return Keeping(file, key, settings, "--resume goes on there", "begin again with --force")


def _written(out: Path, student: Student, learner: DensityLearner, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Write the sparse network as it is at the end, and its record."""
    from safetensors.torch import save_file

    tensors = student.proved()
    with atomic_file(out) as temporary:
        save_file(tensors, str(temporary), metadata={"made_by": MADE_BY})
    last = learner.points[-1]
    record = {
        "made_by": MADE_BY, "sha256": sha256_of(out), "architecture": student.loaded.architecture,
        "density": learner.densities[-1][1], **settings, "psnr": last.psnr, "fidelity": last.fidelity,
        "densities": [list(one) for one in learner.densities],
    }  # fmt: skip
    write_json(record_of(out), record)
    return record
