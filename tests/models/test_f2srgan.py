"""F2SRGAN and its student: published files, the Fourier unit against its closed form, odd sizes, export, bad files."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.core.tolerance import TORCH_FP32, largest_difference
from sr_deploy.models.architectures.f2srgan import F2SRGAN, F2SRGAN_STUDENT, FourierUnit, SpectralTransform
from sr_deploy.models.base import Asked
from tests.synthetic_checkpoints import f2srgan


def published(assets, name):
    """The tensors of a published file."""
    path = next((assets / "weights").glob(f"{name}.*"))
    if "whole_module" in name:
        from sr_deploy.checkpoint.read import checkpoint_from_file

        return checkpoint_from_file(path).tensors
    return torch.load(path, weights_only=True, map_location="cpu")["model"]


def picture(height: int, width: int) -> torch.Tensor:
    return 255 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("row", "name", "scale", "parameters", "notes"),
    [
        (F2SRGAN, "f2srgan_x4", 4, 202_233, ()),
        (F2SRGAN, "f2srgan_x2", 2, 184_889, ()),
        (F2SRGAN, "f2srgan_x4_qat", 4, 202_233, ("104 observers",)),
        (F2SRGAN_STUDENT, "f2srgan_x4_student", 4, 113_145, ("residual3 and residual4 (38656 weights)",)),
        (
            F2SRGAN_STUDENT,
            "light_f2srgan_x4_whole_module",
            4,
            77_865,
            ("40 observers", "residual3 and residual4 (38656 weights)"),
        ),
    ],
)
def test_published_files_give_the_published_output(assets, row, name, scale, parameters, notes):
    tensors = published(assets, name)
    assert [other for other in (F2SRGAN, F2SRGAN_STUDENT) if other.detect(tensors)] == [row]
    model = row.load(tensors, Asked())
    assert (model.architecture, model.form, model.scale, model.parameters) == (row.name, "folded", scale, parameters)
    assert len(model.notes) == len(notes)
    assert all(note.startswith(start) for note, start in zip(model.notes, notes))
    golden = np.load(assets / "golden" / f"{name}.npz")
    for kind in ("even", "odd"):
        lr = torch.from_numpy(golden[f"input_{kind}"].transpose(2, 0, 1)[None].astype(np.float32))
        sr = model.module(lr).numpy()
        assert largest_difference(sr, golden[f"output_{kind}"], 255.0) <= TORCH_FP32.steps


def test_hyperparameters_are_read_off_keys_and_shapes(assets):
    full = F2SRGAN.load(published(assets, "f2srgan_x4"), Asked())
    assert full.hyperparameters == {"width": 64, "blocks": 16, "fourier_blocks": list(range(0, 16, 2))}
    light = F2SRGAN_STUDENT.load(published(assets, "light_f2srgan_x4_whole_module"), Asked())
    assert light.hyperparameters["inner_widths"] == [1, 1, 1, 1]
    assert light.hyperparameters["used_parameters"] == 77_865 - 38_656


def unit(channels: int, seed: int) -> FourierUnit:
    module = FourierUnit(channels).double()
    generator = torch.Generator().manual_seed(seed)
    module.complex_weight.data = torch.randn(module.complex_weight.shape, generator=generator, dtype=torch.float64)
    return module


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (7, 6), (4, 9), (1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("channels", [4, 5])
def test_fourier_unit_equals_its_closed_form(channels, size):
    """conv1x1(x, Re K') + conv1x1(x @ Q, Im K') with the rotated matrix K' and minus the Hilbert transform Q."""
    module = unit(channels, seed=1)
    height, width = size
    x = torch.randn(2, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    order = (torch.arange(channels) + channels // 2) % channels
    rotated = module.complex_weight.data[:, :, 0, 0][order][:, order]
    mask = torch.ones(width // 2 + 1, dtype=torch.float64)
    mask[0] = 0
    if width % 2 == 0:
        mask[-1] = 0
    hilbert = torch.fft.irfft(mask * 1j * torch.fft.rfft(torch.eye(width, dtype=torch.float64)), n=width)
    wanted = F.conv2d(x, rotated[..., 0, None, None]) + F.conv2d(x @ hilbert, rotated[..., 1, None, None])
    torch.testing.assert_close(module(x), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(6, 8), (5, 8), (6, 7), (7, 9), (2, 3)])
def test_quarters_are_stacked_left_before_right_and_the_odd_edge_is_zero(size):
    transform = SpectralTransform(8, 8, 8)
    transform.lfu = torch.nn.Conv2d(8, 8, 1, bias=False)
    height, width = size
    h, w = height // 2, width // 2
    x = torch.randn(1, 8, height, width, generator=torch.Generator().manual_seed(3))
    part = x[:, :2]
    stacked = torch.cat(
        [part[..., :h, :w], part[..., h : 2 * h, :w], part[..., :h, w : 2 * w], part[..., h : 2 * h, w : 2 * w]], dim=1
    )
    wanted = torch.zeros(1, 8, height, width)
    for top in (0, h):
        for left in (0, w):
            wanted[..., top : top + h, left : left + w] = transform.lfu(stacked)
    torch.testing.assert_close(transform._of_quarters(x), wanted, rtol=0, atol=0)


def test_the_smallest_input_is_as_stated():
    model = F2SRGAN.load(f2srgan(32, 1, 2, seed=1), Asked())
    assert model.sizes.minimum == 2
    for height, width in ((2, 2), (2, 3), (3, 2), (5, 5)):
        assert torch.isfinite(model.module(picture(height, width))).all()
    for height, width in ((1, 4), (4, 1)):
        with pytest.raises(RuntimeError):
            model.module(picture(height, width))
    student = F2SRGAN_STUDENT.load(f2srgan(32, 1, 1, seed=1, middles=[3, 5]), Asked())
    assert student.sizes.minimum == 1
    assert student.module(picture(1, 1)).shape == (1, 3, 2, 2)


def test_student_runs_its_second_group_three_times_and_ignores_the_dead_ones():
    tensors = f2srgan(32, 2, 2, seed=2, middles=[3, 1, 5, 2])
    model = F2SRGAN_STUDENT.load(tensors, Asked())
    assert (model.scale, model.hyperparameters["inner_widths"]) == (4, [3, 1, 5, 2])
    x = picture(6, 5)
    network = model.module
    shallow = network.initial(network.sub_mean(x))
    deep = network.residual1(shallow)
    for _ in range(3):
        deep = network.residual2(deep)
    wanted = network.add_mean(network.final_conv(network.upsampler(deep + shallow)))
    assert torch.equal(network(x), wanted)
    poisoned = {key: value * float("nan") if key.startswith("residual3") else value for key, value in tensors.items()}
    assert torch.equal(F2SRGAN_STUDENT.load(poisoned, Asked()).module(x), wanted)
    alive = {key: value for key, value in tensors.items() if not key.startswith(("residual3", "residual4"))}
    bare = F2SRGAN_STUDENT.load(alive, Asked())
    assert bare.notes == ()
    assert bare.parameters == model.hyperparameters["used_parameters"]


def test_observers_change_nothing():
    tensors = f2srgan(32, 1, 2, seed=3)
    observed = dict(tensors)
    for path in ("residual.0.block1.1.quantAct", "residual.0.block1.0.convg2g.conv1.1.1", "upsampler.2.quantAct"):
        for name in ("x_min", "x_max", "beta", "beta_t"):
            observed[f"{path}.{name}"] = torch.ones(1)
    model, plain = F2SRGAN.load(observed, Asked()), F2SRGAN.load(tensors, Asked())
    assert model.parameters == plain.parameters
    assert model.notes[0].startswith("12 observers")
    assert torch.equal(model.module(picture(6, 7)), plain.module(picture(6, 7)))


@pytest.mark.filterwarnings("ignore")
def test_everything_but_the_transforms_exports_for_even_and_odd_sizes_at_once(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = copy.deepcopy(F2SRGAN.load(f2srgan(32, 1, 2, seed=4), Asked()).module)
    spectral = network.residual[0].block1[0].convg2g
    spectral.fu, spectral.lfu = torch.nn.Identity(), torch.nn.Identity()
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        network,
        (picture(8, 9),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["lr"],
        output_names=["sr"],
        dynamic_axes={"lr": {2: "height", 3: "width"}, "sr": {2: "h", 3: "w"}},
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width in ((8, 9), (10, 12), (11, 12), (12, 7), (13, 15), (2, 3)):
        lr = picture(height, width)
        got = session.run(None, {"lr": lr.numpy()})[0]
        np.testing.assert_allclose(got, network(lr).numpy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual.1.block2.0.1.bias": None}, r"missing residual\.1\.block2\.0\.1\.bias$"),
        ({"residual.0.block1.1.weight": None}, r"missing residual\.0\.block1\.1\.weight$"),
        ({"initial.0.1.weight": None}, r"missing initial\.0\.1\.weight$"),
        ({"residual.1.block1.2.weight": torch.zeros(3)}, r"unexpected residual\.1\.block1\.2\.weight$"),
        ({"add_mean.bias": torch.full((3,), float("nan"))}, r"NaN or infinite weights in add_mean\.bias$"),
        ({"final_conv.1.bias": torch.zeros(4)}, r"final_conv\.1\.bias is \(4,\), the network has \(3,\)$"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(change, message):
    tensors = {**f2srgan(32, 1, 2, seed=1), **change}
    tensors = {key: value for key, value in tensors.items() if value is not None}
    with pytest.raises(BadCheckpoint, match="(?m)" + message):
        F2SRGAN.load(tensors, Asked())


@pytest.mark.parametrize(("row", "middles"), [(F2SRGAN, None), (F2SRGAN_STUDENT, [4, 4, 4, 4])])
def test_another_scale_is_refused(row, middles):
    with pytest.raises(UsageError, match="--scale 4 was asked for, but this .* is x2"):
        row.load(f2srgan(32, 1, 2, seed=1, middles=middles), Asked(scale=4))
