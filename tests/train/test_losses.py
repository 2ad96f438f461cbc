"""Every loss of the table against a second implementation in plain numpy, and its gradient by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sr_deploy.core.errors import UsageError
from sr_deploy.train.losses.features import Attention
from sr_deploy.train.losses.table import LOSSES, loss_named, terms_of

SIDE = 32


def pictures(seed):
    return np.random.default_rng(seed).uniform(size=(2, 3, SIDE, SIDE))


def features(seed, channels):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, count, 4, 5)) for count in channels]


STUDENT, TEACHER = features(1, (3, 2)), features(2, (4, 5, 3))
ROWS = np.array([0, 7, 19])


def attention():
    torch.manual_seed(3)
    return Attention((3, 2), (4, 5, 3)).double()


# --- plain numpy -----------------------------------------------------------------------------------------------------


def np_blurred(x):
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    height, width = x.shape[2:]
    return sum(kernel[i, j] * padded[:, :, i : i + height, j : j + width] for i in range(5) for j in range(5))


def np_pyramid(x):
    levels = []
    for _ in range(4):
        blurred = np_blurred(x)
        half = blurred.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean(axis=(3, 5))
        spread = np.zeros_like(x)
        spread[:, :, ::2, ::2] = half
        levels.append(x - 4 * np_blurred(spread))
        x = half
    return [*levels, x]


def np_laplacian(g, w):
    return sum(2**i * np.abs(a - b).mean() for i, (a, b) in enumerate(zip(np_pyramid(g), np_pyramid(w))))


def np_gradient_variance(g, w):
    filters = {
        0.2: [[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]],
        0.1: [[[0, 1, 0], [1, -4, 1], [0, 1, 0]]],
    }

    def variances(x, kernel):
        grey = np.pad(0.2989 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2], ((0, 0), (1, 1), (1, 1)))
        edges = sum(kernel[i][j] * grey[:, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3))
        count = SIDE // 8
        return edges.reshape(-1, count, 8, count, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64).var(axis=1, ddof=1)

    return sum(
        weight * ((variances(g, kernel) - variances(w, kernel)) ** 2).mean()
        for weight, kernels in filters.items()
        for kernel in kernels
    )


def np_kl(g, w):
    def shares(x):
        raised = np.exp(x / 4)
        return raised / raised.sum(axis=1, keepdims=True)

    return 16 / len(g) * (shares(w) * np.log(shares(w) / shares(g))).sum()


def np_tv(g):
    return sum(np.abs(np.diff(g, axis=axis)).sum() for axis in (2, 3))


def np_map(feature):
    flat = (feature**2).mean(axis=1).reshape(len(feature), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def np_at(student, teacher):
    return sum(((np_map(a) - np_map(b)) ** 2).mean() for a, b in zip(student, teacher))


def np_affinity(student, teacher, rows=None):
    total = 0.0
    for pair in zip(student, teacher):
        one, other = (f.reshape(*f.shape[:2], -1) / np.linalg.norm(f, axis=1).reshape(len(f), 1, -1) for f in pair)
        difference = np.einsum("nci,ncj->nij", one, one) - np.einsum("nci,ncj->nij", other, other)
        total += np.abs(difference if rows is None else difference[:, rows]).mean()
    return total


def np_afd(student, teacher, learned):
    tensors = {name: value.detach().numpy() for name, value in learned.named_parameters()}

    def layer(name, x):
        y = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        return (y - y.mean(axis=0)) / np.sqrt(y.var(axis=0) + 1e-5)

    keys = [np.maximum(layer(f"keys.{i}", f.mean(axis=(2, 3))), 0) for i, f in enumerate(student)]
    queries = [layer(f"queries.{i}", f.mean(axis=(2, 3))) for i, f in enumerate(teacher)]
    rows = np.stack(keys, axis=1).reshape(-1, 128)
    twisted = layer("bilinear", rows).reshape(3, len(student), len(teacher), 128)
    total = 0.0
    for t, wanted in enumerate(teacher):
        logits = np.stack([(twisted[:, s, t] * queries[t]).sum(axis=1) for s in range(len(student))], axis=1)
        logits = (logits + tensors["of_student"] @ tensors["of_teacher"][t]) / np.sqrt(128)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        apart = np.stack([((np_map(one) - np_map(wanted)) ** 2).mean(axis=1) for one in student], axis=1)
        total += (shares * apart).sum(axis=1).mean()
    return total


PAIR = (pictures(1), pictures(2))
#: Name → (what the loss is given, the same in numpy).
CASES = {
    "l1": (PAIR, lambda g, w: np.abs(g - w).mean()),
    "charbonnier": (PAIR, lambda g, w: np.sqrt((g - w) ** 2 + 1e-6).mean()),
    "laplacian": (PAIR, np_laplacian),
    "laplacian-hf": (PAIR, lambda g, w: np_laplacian(g, w) + np_laplacian(g - np_blurred(g), w - np_blurred(w))),
    "gradient-variance": (PAIR, np_gradient_variance),
    "kl": ((255 * PAIR[0], 255 * PAIR[1]), np_kl),
    "tv": ((PAIR[0],), np_tv),
    "at": ((STUDENT, TEACHER[:2]), np_at),
    "affinity": ((STUDENT, TEACHER[:2]), np_affinity),
    "affinity, three rows": ((STUDENT, TEACHER[:2], ROWS), np_affinity),
    "afd": ((STUDENT, TEACHER, attention()), np_afd),
}


def as_tensors(value):
    if isinstance(value, list):
        return [torch.from_numpy(one) for one in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def test_every_loss_has_a_case():
    assert {name.partition(",")[0] for name in CASES} == {loss.name for loss in LOSSES}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_what_plain_numpy_says_and_its_gradient_is_right(name):
    given, plainly = CASES[name]
    loss = loss_named(name.partition(",")[0])
    first, *rest = (as_tensors(value) for value in given)
    assert loss.function(first, *rest).item() == pytest.approx(plainly(*given), rel=1e-6)
    several = isinstance(first, list)
    inputs = [one.clone().requires_grad_() for one in (first if several else [first])]

    def of(*changed):
        return loss.function(list(changed) if several else changed[0], *rest)

    assert torch.autograd.gradcheck(of, inputs, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_equal_pictures_and_features_lose_nothing():
    for name, (given, _) in CASES.items():
        if name.startswith(("tv", "charbonnier", "afd")):
            continue
        first, _, *rest = (as_tensors(value) for value in given)
        assert loss_named(name.partition(",")[0]).function(first, first, *rest).item() == pytest.approx(0, abs=1e-12)


def test_what_the_attention_of_afd_learns_has_a_gradient():
    learned = attention()
    student, teacher, _ = CASES["afd"][0]
    loss_named("afd").function(as_tensors(student), as_tensors(teacher), learned).backward()
    assert all(parameter.grad is not None for parameter in learned.parameters())


def test_losses_are_read_from_the_command_line():
    assert [str(term) for term in terms_of("l1, laplacian=0.5,l1@hr=0.1")] == ["l1=1", "laplacian=0.5", "l1@hr=0.1"]
    for text, found in (
        ("l3=1", "no loss 'l3'"),
        ("l1=zero", "'zero' is no weight"),
        ("l1=-1", "'-1' is no weight"),
        ("l1=nan", "'nan' is no weight"),
        ("l1=1,l1=2", "one loss twice"),
        ("at@hr=1", "at is not taken against a picture"),
        ("l1@lr=1", "'lr' is nothing to compare with"),
        (",", "names no loss"),
    ):
        with pytest.raises(UsageError, match=found):
            terms_of(text)
