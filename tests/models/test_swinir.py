"""SwinIR: against spandrel's on the same weights, and one dynamic graph at many sizes."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.core.tolerance import GRAPH_FP32, TORCH_FP32, largest_difference
from sr_deploy.models.architectures.swinir import SWINIR, LightweightSwinIR, SwinShape
from sr_deploy.models.base import Asked

FORMS = {
    "mini": {"depths": [4, 4, 4], "num_heads": [6, 6, 6], "upscale": 2, "upsampler": "pixelshuffledirect"},
    "classical x3": {"depths": [2, 3], "num_heads": [6, 4], "upscale": 3, "upsampler": "pixelshuffle"},
    "classical x4": {"depths": [2], "num_heads": [3], "upscale": 4, "upsampler": "pixelshuffle", "window_size": 7},
    "real-world": {
        "depths": [2, 2],
        "num_heads": [6, 6],
        "upscale": 4,
        "upsampler": "nearest+conv",
        "resi_connection": "3conv",
    },
}


def spandrel_network(form):
    """spandrel's network with random weights, far enough from their initial values that every part counts."""
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(1)
    options = {"embed_dim": 24, "window_size": 8, "mlp_ratio": 2, "img_range": 1.0, **FORMS[form]}
    network = SwinIR(in_chans=3, img_size=2 * options["window_size"], **options).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def small_tensors(**changes):
    """A state dict of this project's network with random weights."""
    torch.manual_seed(2)
    shape = SwinShape(dim=12, window=8, heads=2, hidden=24, qkv_bias=True)
    return {**LightweightSwinIR([2], [shape], False, 2).state_dict(), **changes}


@pytest.mark.parametrize("form", FORMS)
def test_agrees_with_spandrel(form, torchvision_operators):
    import spandrel

    tensors = spandrel_network(form).state_dict()
    assert any(key.endswith("attn_mask") for key in tensors)
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(tensors)).model.eval()
    theirs.img_range = 1.0  # spandrel takes every window of 7 for a JPEG network
    assert SWINIR.detect(tensors)
    loaded = SWINIR.load(tensors, Asked())
    expected = FORMS[form]
    assert loaded.scale == expected["upscale"]
    for name, key in (("depths", "depths"), ("heads", "num_heads"), ("upsampler", "upsampler")):
        assert loaded.hyperparameters[name] == expected[key]
    assert loaded.hyperparameters["window"] == expected.get("window_size", 8)
    assert loaded.hyperparameters["mlp_ratio"] == 2
    for size in ((16, 16), (17, 23), (40, 29), (loaded.sizes.minimum, 31)):
        lr = torch.rand(1, 3, *size)
        with torch.no_grad():
            theirs_sr, ours = theirs(lr).numpy(), loaded.module(lr).numpy()
        assert ours.shape == (1, 3, loaded.scale * size[0], loaded.scale * size[1])
        assert np.std(theirs_sr) > 0.01
        assert largest_difference(ours, theirs_sr, 1.0) <= TORCH_FP32.steps, size


def test_masks_and_indices_of_the_file_are_not_used():
    tensors = small_tensors()
    plain = SWINIR.load(tensors, Asked())
    prefix = "layers.0.residual_group.blocks.1."
    stale = {
        f"{prefix}attn_mask": torch.full((4, 64, 64), 7.0),
        f"{prefix}attn.relative_position_index": torch.zeros(64, 64, dtype=torch.long),
    }
    loaded = SWINIR.load({**tensors, **stale}, Asked())
    lr = torch.rand(1, 3, 24, 19)
    assert torch.equal(loaded.module(lr), plain.module(lr))


def test_a_batch_equals_its_pictures():
    network = SWINIR.load(small_tensors(), Asked()).module
    lr = torch.rand(2, 3, 21, 18)
    both = network(lr)
    for picture in range(2):
        alone = network(lr[picture : picture + 1])
        assert largest_difference(both[picture : picture + 1].numpy(), alone.numpy(), 1.0) <= TORCH_FP32.steps


@pytest.mark.parametrize("form", ["mini", "real-world"])
def test_one_dynamic_graph_is_right_at_other_sizes(form, torchvision_operators):
    loaded = SWINIR.load(spandrel_network(form).state_dict(), Asked())
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            loaded.module,
            (torch.rand(1, 3, 20, 28),),
            stream,
            opset_version=17,
            dynamo=False,
            input_names=["lr"],
            output_names=["sr"],
            dynamic_axes={"lr": {2: "height", 3: "width"}, "sr": {2: "out_height", 3: "out_width"}},
        )
    session = onnxruntime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    for size in ((20, 28), (16, 16), (17, 23), (48, 31), (5, 40), (8, 8)):
        lr = torch.rand(1, 3, *size)
        ours = loaded.module(lr).numpy()
        (sr,) = session.run(None, {"lr": lr.numpy()})
        assert largest_difference(sr, ours, 1.0) <= GRAPH_FP32.steps, size


def test_the_smallest_size_is_the_smallest_that_runs():
    loaded = SWINIR.load(small_tensors(), Asked())
    smallest = loaded.sizes.minimum
    assert loaded.module(torch.rand(1, 3, smallest, smallest)).shape == (1, 3, 2 * smallest, 2 * smallest)
    with pytest.raises(RuntimeError, match="Padding size"):
        loaded.module(torch.rand(1, 3, smallest - 1, 16))


def test_counts_and_the_conventions_behind_the_published_ones():
    # width, depths, weights, bias tables, GMACs of convolutions, linear layers and attention at 360x640
    published = ((60, [6] * 4, 910_152, 32_400, 240.91), (24, [4] * 3, 98_868, 16_200, 26.76))
    for dim, depths, weights, tables, macs in published:
        shape = SwinShape(dim=dim, window=8, heads=6, hidden=2 * dim, qkv_bias=True)
        tensors = LightweightSwinIR(depths, [shape] * len(depths), False, 2).state_dict()
        loaded = SWINIR.load(tensors, Asked())
        assert loaded.parameters == weights
        assert any(f"{tables:,}" in note for note in loaded.notes)
        with FlopCounterMode(display=False) as counter:
            loaded.module(torch.zeros(1, 3, 8, 16))
        assert counter.get_total_flops() / 2 * 45 * 40 / 1e9 == pytest.approx(macs, abs=0.006)
        # flops() of the authors' code: the same but for the last body convolution (3, not 9, per pair of channels) and
        # the upsampling (3, not 12, outputs), plus the two LayerNorms of each block and the first one.
        pixels = 360 * 640
        missing = 6 * dim * dim + 9 * 9 * dim
        norms = (2 * sum(depths) + 1) * dim
        theirs = (counter.get_total_flops() / 2 / 128 - missing + norms) * pixels / 1e9
        if dim == 60:
            assert round((weights - tables) / 1e3) == 878
            assert round(theirs * (368 * 520) / pixels, 1) == 195.6
        else:
            assert weights // 100 == 988
            assert round(theirs * (368 * 520) / pixels, 1) == 21.3  # published as 22.0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(scale=4), "x2 by its shapes"),
        (Asked(res_scale=1.0), "--res-scale"),
        (Asked(lora_alpha="2r"), "--lora-alpha"),
    ],
)
def test_values_that_do_not_fit_are_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        SWINIR.load(small_tensors(), asked)


def test_a_table_of_no_square_window_is_refused():
    key = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
    with pytest.raises(BadCheckpoint, match="224x2"):
        SWINIR.load(small_tensors(**{key: torch.zeros(224, 2)}), Asked())


def test_a_network_without_upsampling_is_refused():
    tensors = {key: value for key, value in small_tensors().items() if not key.startswith("upsample")}
    with pytest.raises(BadCheckpoint, match="no upsampling"):
        SWINIR.load({**tensors, "conv_last.weight": torch.zeros(3, 12, 3, 3)}, Asked())


def test_a_missing_tensor_is_named():
    tensors = small_tensors()
    del tensors["layers.0.residual_group.blocks.1.attn.proj.bias"]
    with pytest.raises(BadCheckpoint, match=r"missing layers\.0\.residual_group\.blocks\.1\.attn\.proj\.bias"):
        SWINIR.load(tensors, Asked())
