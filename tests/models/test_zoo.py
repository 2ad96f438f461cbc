"""Networks through spandrel: real files, export, and what is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
import warnings

import onnxruntime
import pytest
import torch

from sr_deploy.core.errors import BadCheckpoint, UnknownArchitecture, UsageError
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import detect_architecture, model_from_tensors
from sr_deploy.models.zoo import model_from_spandrel


def stored(assets, name):
    return torch.load(assets / "weights" / name, map_location="cpu", weights_only=True)["params"]


def random_safmn():
    from spandrel.architectures.SAFMN import SAFMN

    torch.manual_seed(3)
    return SAFMN(dim=36, n_blocks=8, ffn_scale=2.0, upscaling_factor=4)


def session_of(module, size, dynamic):
    stream = io.BytesIO()
    axes = {"lr": {2: "height", 3: "width"}, "sr": {2: "out_height", 3: "out_width"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.rand(1, 3, *size),),
            stream,
            opset_version=17,
            dynamo=False,
            input_names=["lr"],
            output_names=["sr"],
            dynamic_axes=axes,
        )
    return onnxruntime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])


def difference(session, module, size):
    lr = torch.rand(1, 3, *size)
    with torch.no_grad():
        expected = module(lr).numpy()
    return largest_difference(session.run(None, {"lr": lr.numpy()})[0], expected, 1.0)


def test_a_network_that_only_spandrel_knows_loads_and_exports_for_all_sizes(torchvision_operators):
    from spandrel.architectures.SPAN import SPAN

    torch.manual_seed(4)
    tensors = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2, norm=False).state_dict()
    assert detect_architecture(tensors) is None
    loaded = model_from_tensors(tensors, Asked(), None)
    assert (loaded.architecture, loaded.scale, loaded.value_range) == ("SPAN", 2, 1.0)
    session = session_of(loaded.module, (24, 32), dynamic=True)
    for size in ((24, 32), (32, 24), (19, 41)):
        assert difference(session, loaded.module, size) <= GRAPH_FP32.steps, size


def test_safmn_exports_at_a_fixed_size(torchvision_operators):
    tensors = random_safmn().state_dict()
    loaded = model_from_tensors(tensors, Asked(), None)
    assert (loaded.architecture, loaded.scale, loaded.parameters) == ("SAFMN", 4, 239_520)
    assert loaded.sizes.multiple == 8
    # Adaptive pooling has no form in ONNX with a size that is not known, so there is no dynamic graph of it.
    assert difference(session_of(loaded.module, (48, 64), dynamic=False), loaded.module, (48, 64)) <= GRAPH_FP32.steps


def test_the_tensors_given_are_left_as_they_were(torchvision_operators):
    tensors = {f"module.{key}": value for key, value in random_safmn().state_dict().items()}
    before = list(tensors)
    assert model_from_spandrel(tensors).scale == 4
    assert list(tensors) == before


def test_a_variant_that_spandrel_does_not_know_is_left_to_others(assets, torchvision_operators):
    # The SAFMN file at hand is the NTIRE 2023 variant: one norm in front, no biases. architectures/safmn.py has it.
    assert model_from_spandrel(stored(assets, "safmn_x4.pth")) is None


def test_what_nobody_knows_is_unknown(torchvision_operators):
    with pytest.raises(UnknownArchitecture, match="spandrel does not know it either"):
        model_from_tensors({"stem.weight": torch.zeros(8, 3, 3, 3)}, Asked(), None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(scale=2), "x4 by its shapes"),
        (Asked(res_scale=1.0), "--res-scale"),
    ],
)
def test_values_that_do_not_fit_are_refused(asked, message, torchvision_operators):
    with pytest.raises(UsageError, match=message):
        model_from_tensors(random_safmn().state_dict(), asked, None)


def test_a_damaged_file_is_refused(torchvision_operators):
    tensors = random_safmn().state_dict()
    del tensors["feats.7.ccm.ccm.2.bias"]
    with pytest.raises(BadCheckpoint, match="spandrel cannot load this checkpoint"):
        model_from_spandrel(tensors)


def test_a_network_that_enlarges_nothing_is_refused(torchvision_operators):
    from spandrel.architectures.SwinIR import SwinIR

    denoiser = SwinIR(img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=8, upsampler="")
    with pytest.raises(BadCheckpoint, match="SwinIR, which is for Restoration, with scale 1"):
        model_from_spandrel(denoiser.state_dict())


def test_a_grey_network_is_refused(torchvision_operators):
    from spandrel.architectures.Compact import Compact

    grey = Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=2, upscale=2)
    with pytest.raises(BadCheckpoint, match="takes 1 and gives 1 channels"):
        model_from_spandrel(grey.state_dict())


def test_spandrel_that_does_not_import_is_explained(tmp_path):
    (tmp_path / "spandrel").mkdir()
    (tmp_path / "spandrel" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms is not there')\n")
    script = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import torch
        from sr_deploy.core.errors import MissingPackage, UnknownArchitecture
        from sr_deploy.models.base import Asked
        from sr_deploy.models.registry import model_from_tensors
        from sr_deploy.models.zoo import model_from_spandrel
        for call in (model_from_spandrel, lambda tensors: model_from_tensors(tensors, Asked(), None)):
            try:
                call({{"encoder.weight": torch.zeros(4, 4)}})
            except (MissingPackage, UnknownArchitecture) as error:
                print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    reason = "spandrel is installed but does not import: RuntimeError: operator torchvision::nms is not there"
    assert f"MissingPackage {reason}" in done.stdout
    assert "UnknownArchitecture this checkpoint is of no known architecture: 1 tensors: encoder" in done.stdout
    assert done.stdout.count(reason) == 2


def test_inspect_says_why_spandrel_could_not_be_asked(tmp_path, monkeypatch, srdeploy):
    package = tmp_path / "broken" / "spandrel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms is not there')\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(package.parent)
    torch.save({"encoder.weight": torch.zeros(4, 4)}, tmp_path / "net.pth")
    reason = "spandrel is installed but does not import: RuntimeError: operator torchvision::nms is not there"
    shown = srdeploy("inspect", tmp_path / "net.pth")
    assert shown.code == 0
    assert reason in " ".join(shown.out.split())
    assert reason in json.loads(srdeploy("inspect", tmp_path / "net.pth", "--json").out)["wanted"]


def test_without_spandrel_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UnknownArchitecture) as caught:
        model_from_tensors({"encoder.weight": torch.zeros(4, 4)}, Asked(), None)
    assert pip_install("zoo") in str(caught.value)
    assert "1 tensors: encoder.weight (4, 4)" in caught.value.found
