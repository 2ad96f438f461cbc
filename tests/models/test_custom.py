"""--model with a module or a file: a user's own network, and every way in which it can be wrong."""

from __future__ import annotations

import textwrap

import pytest
import torch

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.models.custom import AskedOfFactory, model_from_factory

NETWORK = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, scale=2):
            super().__init__()
            self.up = nn.Sequential(nn.Conv2d(3, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale))

        def forward(self, x):
            return self.up(x)

    class Down(Net):
        def forward(self, x):
            half = nn.functional.max_pool2d(x, 8)
            return self.up(x) + nn.functional.interpolate(half, scale_factor=16.0)

    class Pair(Net):
        def forward(self, x):
            return x, self.up(x)

    class Flat(Net):
        def forward(self, x):
            return self.up(x).mean(dim=(2, 3))

    class Swapped(Net):
        def forward(self, x):
            return self.up(x).transpose(2, 3)

    class Broken(Net):
        def forward(self, x):
            raise ValueError("no forward today")

    def build():
        return Net()

    def broken_factory():
        return Net(scale="two")

    def needs_argument(scale):
        return Net(scale)

    def quits():
        raise SystemExit(2)

    def weights():
        return Net().state_dict()

    number = 3
"""


@pytest.fixture
def network(tmp_path, monkeypatch, request):
    """A module of the user in the current folder, under a name of its own for each test."""
    name = f"usernet_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(NETWORK))
    monkeypatch.chdir(tmp_path)
    return name


def test_a_network_of_the_current_folder_is_loaded(network):
    weights = {"up.0.weight": torch.randn(12, 3, 3, 3), "up.0.bias": torch.randn(12)}
    loaded = model_from_factory(f"{network}:build", weights, AskedOfFactory(None, 255.0))
    assert (loaded.scale, loaded.value_range, loaded.parameters) == (2, 255.0, 12 * 27 + 12)
    assert (loaded.sizes.minimum, loaded.sizes.multiple) == (1, 1)
    assert not loaded.module.training
    assert torch.equal(loaded.module.up[0].weight, weights["up.0.weight"])


def test_a_network_of_a_file_elsewhere_is_loaded_with_what_lies_beside_it(tmp_path, monkeypatch):
    folder = tmp_path / "their nets"
    folder.mkdir()
    (folder / "parts_of_it.py").write_text(textwrap.dedent(NETWORK))
    # Called as a package is that is imported already, and with a dataclass, which looks its module up.
    made = "import dataclasses\nimport torch.nn\nfrom parts_of_it import Net\n\n\n"
    made += "@dataclasses.dataclass\nclass Scale:\n    value: 'int' = 3\n\n\n"
    (folder / "torch.py").write_text(made + "def build():\n    return Net(Scale().value)\n")
    monkeypatch.chdir(tmp_path)
    for path in ("their nets/torch.py:build", f"{folder / 'torch.py'}:build"):
        loaded = model_from_factory(path, None, AskedOfFactory(None, 1.0))
        assert (loaded.scale, loaded.architecture) == (3, path)
    assert torch.nn.Conv2d


@pytest.mark.parametrize(
    ("path", "message", "todo"),
    [
        ("nothing.py:build", r"--model nothing\.py: there is no such file", "look for it from"),
        ("net.py:bild", "net.py has no bild", "name a function"),
        (
            "net.py:quits",
            "calling the factory without arguments failed: SystemExit",
            "runpy.run_path('net.py')['quits']",
        ),
        ("broken.py:build", "importing broken.py failed: SyntaxError", "runpy.run_path('broken.py')['build']"),
        (
            "needy.py:build",
            "importing needy.py failed: ModuleNotFoundError: No module named 'no_such_package'",
            "runpy",
        ),
    ],
)
def test_what_can_be_wrong_with_a_file_is_named(tmp_path, monkeypatch, path, message, todo):
    (tmp_path / "net.py").write_text(textwrap.dedent(NETWORK))
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        model_from_factory(path, None, AskedOfFactory(None, 1.0))
    assert todo in caught.value.todo


def test_without_a_checkpoint_the_factorys_own_weights_stay(network):
    assert model_from_factory(f"{network}:build", None, AskedOfFactory(2, 1.0)).scale == 2


def test_the_multiple_that_a_network_needs_is_found(network):
    assert model_from_factory(f"{network}:Down", None, AskedOfFactory(None, 1.0)).sizes.multiple == 8


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}", "does not name a function"),
        ("{}:", "does not name a function"),
        ("no_such_module_here:build", "no module no_such_module_here"),
        ("{}.sub:build", "importing .* failed|no module"),
        ("{}:bild", "has no bild"),
        ("{}:number", "number is a int and cannot be called"),
        ("{}:broken_factory", "calling the factory without arguments failed: TypeError"),
        ("{}:needs_argument", "calling the factory without arguments failed: TypeError"),
        ("{}:quits", "calling the factory without arguments failed: SystemExit"),
        ("{}:weights", "the factory gave a OrderedDict"),
        ("{}:Broken", "ValueError: no forward today"),
        ("{}:Pair", "its output is a tuple"),
        ("{}:Flat", r"it gives \(1, 3\)"),
        ("{}:Swapped", r"it gives \(1, 3, 384, 128\) for an input of \(1, 3, 64, 192\)"),
    ],
)
def test_what_can_be_wrong_is_named(network, path, message):
    with pytest.raises(UsageError, match=message) as caught:
        model_from_factory(path.format(network), None, AskedOfFactory(None, 1.0))
    assert caught.value.exit_code == 2


def test_the_value_range_is_asked_for(network):
    for value_range, message in ((None, "no value range was given"), (2.0, "--value-range 2 is not supported")):
        with pytest.raises(UsageError, match=message):
            model_from_factory(f"{network}:build", None, AskedOfFactory(None, value_range))


def test_another_scale_is_refused(network):
    with pytest.raises(UsageError, match="enlarges 2 times"):
        model_from_factory(f"{network}:build", None, AskedOfFactory(4, 1.0))


def test_tensors_that_do_not_fit_are_named(network):
    with pytest.raises(BadCheckpoint, match="missing up.0.bias; unexpected head.bias"):
        tensors = {"up.0.weight": torch.zeros(12, 3, 3, 3), "head.bias": torch.zeros(1)}
        model_from_factory(f"{network}:build", tensors, AskedOfFactory(None, 1.0))


def test_a_module_that_lacks_a_package_says_which(tmp_path, monkeypatch):
    (tmp_path / "needy_network.py").write_text("import package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="No module named 'package_that_nobody_has'"):
        model_from_factory("needy_network:build", None, AskedOfFactory(None, 1.0))
