"""Channels that hang together are found, and a graph without some is the graph that does not read them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from sr_deploy.compress import operators
from sr_deploy.compress.cost import costs_of
from sr_deploy.compress.coupling import Track
from sr_deploy.compress.distil import with_weights
from sr_deploy.compress.groups import narrowed, network_of, zeroed
from sr_deploy.compress.prove import proved
from sr_deploy.graph.census import node_macs, parameters_of, shapes_of
from tests.compress.graphs import CASES, Case, model_of

SIZE = (10, 13)


def picture(size=SIZE, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).random((1, 3, *size), np.float32))


def some_of(network, share=2):
    return frozenset(one for group in network.groups for one in group.classes[::share])


@pytest.fixture(scope="module", params=CASES)
def found(request):
    return CASES[request.param], network_of(model_of(CASES[request.param]), picture())


def test_groups_are_those_of_the_graph(found):
    case, network = found
    assert sorted(group.width for group in network.groups) == list(case.widths)
    assert tuple(network.coupling.stopped) == case.stopped


def run(model, size):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": picture(size, 5).numpy()})[0]


def test_slicing_equals_not_reading_in_another_runtime(found):
    _, network = found
    gone = some_of(network)
    narrow, whole = narrowed(network, gone), with_weights(network.model, zeroed(network, gone))
    assert parameters_of(narrow) < parameters_of(network.model) or not gone
    for size in (SIZE, (12, 16)):
        one, other = run(narrow, size), run(whole, size)
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def test_every_group_is_proved(found):
    _, network = found
    assert proved(network, [picture(), picture((12, 16), 2)], 0, pytest.fail).groups == network.groups


def test_costs_are_those_of_the_narrower_graph(found):
    """Counted from groups alone, beside shape inference on the graph that is really cut."""
    _, network = found
    costs, gone = costs_of(network, SIZE[0] * SIZE[1]), some_of(network)
    widths = {group.name: group.width - len(gone.intersection(group.classes)) for group in network.groups}
    model = narrowed(network, gone)
    assert costs.parameters(widths) == parameters_of(model)
    for axis, length in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, *SIZE)):
        axis.dim_value = length
    shapes = shapes_of(onnx.shape_inference.infer_shapes(model, data_prop=True))
    try:
        expected = sum(node_macs(node, shapes) for node in model.graph.node)
    except KeyError:
        pytest.skip("shape inference does not know every size of this graph")
    assert costs.macs(widths) * SIZE[0] * SIZE[1] == pytest.approx(expected)


def test_a_wrong_rule_is_found_out(monkeypatch):
    """The rules are believed only where the graph confirms them; what fails stays whole, the rest may go."""

    def wrong(spot):
        [track] = operators.RULES_BEFORE(spot)
        return [None if track is None else Track(track.axis, track.labels[::-1].copy())]

    monkeypatch.setattr(operators, "RULES_BEFORE", operators.RULES["Concat"], raising=False)
    monkeypatch.setitem(operators.RULES, "Concat", wrong)
    network, said = network_of(model_of(CASES["split and concat"]), picture()), []
    left = proved(network, [picture()], 0, said.append)
    assert len(left.groups) < len(network.groups)
    assert said and "differs" in " ".join(said)
    assert not some_of(left) or proved(left, [picture()], 1, pytest.fail).groups == left.groups


def test_an_operator_without_a_rule_holds_its_channels(monkeypatch):
    monkeypatch.delitem(operators.RULES, "PRelu")
    network = network_of(model_of(CASES["residual stream"]), picture())
    assert [group.width for group in network.groups] == [8]
    assert "PRelu" in network.coupling.stopped


def test_a_constant_that_is_read_as_a_whole_stays_whole():
    case = CASES["one bias of two weights"]
    text = case.text.replace("sr = Conv<pads=[1,1,1,1]>(b, w9)", "k = ReduceSum(b0) c = Add(b, k) "
                             "sr = Conv<pads=[1,1,1,1]>(c, w9)")  # fmt: skip
    network = network_of(model_of(dataclasses.replace(case, text=text)), picture())
    # The first layer's bias goes into a sum over all of it; the second has a copy of its own.
    assert [group.width for group in network.groups] == [8]
    assert isinstance(case, Case) and network.groups[0].name == "b"
