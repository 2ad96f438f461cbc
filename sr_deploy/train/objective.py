"""What a distillation makes small: weighted losses of pictures and features, and what they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from sr_deploy.core.errors import UsageError
from sr_deploy.train.features import FeaturePairs, Watched
from sr_deploy.train.losses.features import Attention
from sr_deploy.train.losses.table import Term


@dataclass(frozen=True)
class Squares:
    """One step's pictures, each 0…1.

    Attributes:
        given: by the student, (N, 3, s·H, s·W), with its gradient.
        taught: by the teacher; None without one.
        originals: None without.
    """

    given: Tensor
    taught: Optional[Tensor]
    originals: Optional[Tensor]


class Objective:
    """The sum of the terms.

    Args:
        terms: what is summed.
        networks: student and teacher; the teacher None without one.
        pairs: modules whose features are compared; None where no term needs them.
        affinity_rows: rows of the affinity that are compared, drawn anew each step; None: all.
        seed: of those rows.

    Attributes:
        attention: what the ``afd`` term learns beside the student; None without that term.

    Raises:
        UsageError: see Watched.
    """

    def __init__(
        self,
        terms: Tuple[Term, ...],
        networks: Tuple[nn.Module, Optional[nn.Module]],
        pairs: Optional[FeaturePairs],
        affinity_rows: Optional[int] = None,
        seed: int = 0,
    ) -> None:
        self.terms, self.affinity_rows, self.seed = terms, affinity_rows, seed
        self.watched: Tuple[Watched, ...] = ()
        self.attention: Optional[Attention] = None
        teacher = networks[1]
        if pairs is not None and teacher is not None:
            self.watched = (Watched(networks[0], pairs.student), Watched(teacher, pairs.teacher))

    def prepare(self) -> None:
        """After both networks have run once: make what depends on the features' shapes.

        Raises:
            UsageError: features that cannot be compared.
        """
        if not self.watched:
            return
        student, teacher = (watched.features() for watched in self.watched)
        for (one, other), names in zip(zip(student, teacher), zip(*(watched.names for watched in self.watched))):
            if one.shape[2:] != other.shape[2:]:
                raise UsageError(
                    f"--features: {names[0]} of the student is {one.shape[2]}x{one.shape[3]}, {names[1]} of the "
                    f"teacher {other.shape[2]}x{other.shape[3]}",
                    "features of one height and width",
                    "name modules of the same resolution with --features",
                )
        if any(term.loss.name == "afd" for term in self.terms):
            torch.manual_seed(self.seed)
            self.attention = Attention([one.shape[1] for one in student], [one.shape[1] for one in teacher])

    def of(self, squares: Squares, step: int) -> Tensor:
        """The loss of one step, shape (), with its gradient."""
        return torch.stack([term.weight * self._of(term, squares, step) for term in self.terms]).sum()

    def _of(self, term: Term, squares: Squares, step: int) -> Tensor:
        loss = term.loss
        if loss.kind == "features":
            student, teacher = (watched.features() for watched in self.watched)
            return loss.function(student, teacher, **self._more(loss.name, student, step))
        given = squares.given * loss.white
        if loss.kind == "alone":
            return loss.function(given)
        wanted = squares.originals if term.against == "hr" or squares.taught is None else squares.taught
        assert wanted is not None, "checked before the training"
        return loss.function(given, wanted * loss.white)

    def _more(self, name: str, student: List[Tensor], step: int) -> Dict[str, Any]:
        """What a loss of features takes beside them."""
        if name == "afd":
            return {"attention": self.attention}
        if name != "affinity" or self.affinity_rows is None:
            return {}
        pixels = min(one.shape[2] * one.shape[3] for one in student)
        rng = np.random.default_rng((self.seed, step, 1))
        rows = rng.choice(pixels, size=min(self.affinity_rows, pixels), replace=False)
        return {"rows": torch.from_numpy(rows).to(student[0].device)}


def check_terms(terms: Tuple[Term, ...], taught: bool, originals: bool) -> None:
    """Refuse terms that have nothing to compare with.

    Raises:
        UsageError: features without a teacher; a picture of a teacher or an original that is not there; no picture.
    """
    for term in terms:
        if term.loss.kind == "features" and not taught:
            raise UsageError(f"--loss {term} compares features with a teacher's, and there is none", "--teacher CKPT")
        if term.against == "teacher" and not taught:
            raise UsageError(f"--loss {term} follows a teacher, and there is none", "--teacher CKPT")
        if term.against == "hr" and not originals:
            raise UsageError(f"--loss {term} compares with originals, and there are none", "--hr FOLDER")
    if not any(term.loss.kind == "pictures" for term in terms):
        raise UsageError(
            f"--loss {','.join(map(str, terms))} never looks at a picture that is wanted",
            "a loss of pictures beside it",
            "such as --loss l1=1," + ",".join(map(str, terms)),
        )
