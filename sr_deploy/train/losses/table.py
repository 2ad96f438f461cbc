"""The table of losses: a name for each, and what it needs. ``--loss l1=1,laplacian=0.5`` is read here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

from torch import Tensor
from typing_extensions import Literal

from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import row_named
from sr_deploy.train.losses import features, pictures

#: What a loss looks at: the student's picture and another, the student's picture alone, or features of both.
Kind = Literal["pictures", "alone", "features"]


@dataclass(frozen=True)
class Loss:
    """One row.

    Attributes:
        name: as ``--loss`` takes it.
        kind: what it looks at.
        function: of (given, wanted), of (given,), or of (student's features, teacher's features, …).
        white: the value of white that its published weights belong to; pictures are given to it so.
        multiple, smallest: what the height and width of high-resolution squares must be.
        batch: samples in a step, at least.
        about: one line for --help.
    """

    name: str
    kind: Kind
    function: Callable[..., Tensor]
    about: str
    white: float = 1.0
    multiple: int = 1
    smallest: int = 1
    batch: int = 1


LOSSES: Tuple[Loss, ...] = (
    Loss("l1", "pictures", pictures.l1, "mean absolute difference"),
    Loss("charbonnier", "pictures", pictures.charbonnier, "L1 with a round foot, ε 1e-3"),
    Loss("laplacian", "pictures", pictures.laplacian, "levels of a Laplacian pyramid", multiple=16, smallest=32),
    Loss("laplacian-hf", "pictures", pictures.laplacian_high_frequencies, "CDISM: that, and that of high frequencies",
         multiple=16, smallest=32),
    Loss("gradient-variance", "pictures", pictures.gradient_variance, "EFDN: variances of edges",
         smallest=pictures.EDGE_PATCH),
    Loss("kl", "pictures", pictures.kl, "Light F2SRGAN: softmax over colours, temperature 4", white=255.0),
    Loss("tv", "alone", pictures.total_variation, "total variation of what the student gives", white=255.0),
    Loss("at", "features", features.attention_transfer, "attention transfer: where features are strong"),
    Loss("afd", "features", features.attended, "the same, with learned attention between features", batch=2),
    Loss("affinity", "features", features.spatial_affinity, "DSCLoRA: how alike pixels' features are"),
)  # fmt: skip

#: Whom a loss of pictures is taken against.
Against = Literal["teacher", "hr"]


@dataclass(frozen=True)
class Term:
    """One summand of what is made small.

    Attributes:
        loss: the row.
        weight: its factor.
        against: the teacher's picture or the original; None: the teacher's where there is a teacher.
    """

    loss: Loss
    weight: float
    against: Optional[Against] = None

    def __str__(self) -> str:
        return self.loss.name + ("" if self.against is None else f"@{self.against}") + f"={self.weight:g}"


def loss_named(name: str) -> Loss:
    """The row of that name.

    Raises:
        UsageError: there is none; the message lists all.
    """
    return row_named("loss", name, LOSSES, "--loss l1=1,laplacian=0.5; against originals: l1@hr=0.1")


def terms_of(text: str) -> Tuple[Term, ...]:
    """What ``--loss`` says: names with weights, ``l1=1,laplacian=0.5,l1@hr=0.1``; a name alone has the weight 1.

    Raises:
        UsageError: an unknown name, a weight that is none, or a loss twice.
    """
    terms = tuple(_term(part.strip()) for part in text.split(",") if part.strip())
    if not terms:
        raise UsageError("--loss names no loss", "such as l1=1", "leave --loss out for the preset's")
    keys = [(term.loss.name, term.against) for term in terms]
    twice = [str(term) for term, key in zip(terms, keys) if keys.count(key) > 1]
    if twice:
        raise UsageError(f"--loss has one loss twice: {', '.join(twice)}", "each once", "add their weights")
    return terms


def _term(text: str) -> Term:
    name, equals, number = text.partition("=")
    name, at, against = name.partition("@")
    loss = loss_named(name)
    try:
        weight = float(number) if equals else 1.0
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"--loss {text}: {number!r} is no weight", "a number greater than 0, such as l1=1")
    if not at:
        return Term(loss, weight)
    if loss.kind != "pictures":
        raise UsageError(f"--loss {text}: {loss.name} is not taken against a picture", f"{loss.name}={weight:g}")
    if against == "teacher":
        return Term(loss, weight, "teacher")
    if against == "hr":
        return Term(loss, weight, "hr")
    raise UsageError(f"--loss {text}: {against!r} is nothing to compare with", "@teacher or @hr")
