"""Triton model repositories, held against Triton's own protobuf where the package ``tritonclient`` is installed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import shutil
from pathlib import Path

import pytest

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract, SizeRules
from sr_deploy.core.deployment.manifest import GraphFile, Manifest, open_deployment, save_manifest
from sr_deploy.engine.manifest import EngineManifest, engine_name, save_engine
from sr_deploy.pipeline.ship.triton_config import Model, config_text
from tests.small_network import CONTRACT, FIXED_SIZE, SCALE, small_graphs


@pytest.fixture(scope="session")
def model_config():
    """The message class ModelConfig of Triton. Loaded by its file: importing the package would ask for grpc."""
    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("tritonclient, which carries Triton's model_config.proto, is not installed")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture
def parsed(model_config):
    def parse(path):
        from google.protobuf import text_format

        return text_format.Parse(path.read_text(encoding="utf-8"), model_config())

    return parse


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A deployment of the small network: one graph for any size."""
    folder = tmp_path_factory.mktemp("triton") / "net"
    folder.mkdir()
    graphs = small_graphs(folder)
    entry = GraphFile("model.onnx", None, sha256_of(graphs.dynamic), 17, 700, 10**6, 10**6, FIXED_SIZE)
    save_manifest(
        folder,
        Manifest(
            architecture="small", form="folded", scale=SCALE, contract=CONTRACT, sizes=SizeRules(), graphs=(entry,),
            source={"file": "w.pth", "path": "w.pth", "sha256": "0" * 64, "load_options": {}}, parameters=700,
            hyperparameters={}, fold={}, proofs={}, pinned_fp32={}, notes=(), tools={},
        ),
    )  # fmt: skip
    return folder


@pytest.fixture
def deployment(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "net")
    return tmp_path / "net"


def add_engine(deployment, profile, capabilities, **changes):
    """An engine file with its manifest. A repository copies its bytes and never looks into them."""
    manifest = open_deployment(deployment).manifest
    backend = changes.pop("backend", "tensorrt")
    name = engine_name(backend, profile, capabilities)
    plan = f"plan {profile} {capabilities} {changes}".encode()
    fields = {
        "backend": backend, "file": name, "sha256": hashlib.sha256(plan).hexdigest(), "graph_file": "model.onnx",
        "graph_sha256": manifest.graphs[0].sha256, "profile": profile, "precision": "fp32",
        "compute_capabilities": capabilities, "device": "a GPU", "runtime_version": "10.3.0", "activation_bytes": None,
        "weights_bytes": None, "build_seconds": 1.0, "tools": {}, "settings": {}, "warnings": (),
        "contract": manifest.contract, "scale": manifest.scale,
    }  # fmt: skip
    save_engine(deployment / "engines" / name, plan, EngineManifest(**{**fields, **changes}))
    return plan


def test_a_graph_for_any_size(srdeploy, deployment, tmp_path, parsed):
    repository = tmp_path / "models"
    outcome = srdeploy("pack", deployment, "--triton", repository, "--size", "144x256,360x640", "--triton-cache", "/c")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(repository / "net_onnx")
    assert (repository / "net_onnx" / "1" / "model.onnx").read_bytes() == (deployment / "model.onnx").read_bytes()
    config = parsed(repository / "net_onnx" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("net_onnx", "onnxruntime", 0)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("lr", 11, [1, 3, -1, -1])]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("sr", 11, [1, 3, -1, -1])]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP32",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/c",
        "trt_profile_min_shapes": "lr:1x3x144x256",
        "trt_profile_opt_shapes": "lr:1x3x360x640",
        "trt_profile_max_shapes": "lr:1x3x360x640",
    }


def test_engines_for_two_gpus_are_one_model(srdeploy, deployment, tmp_path, parsed):
    fixed = ((360, 640),) * 3
    plans = [add_engine(deployment, fixed, (capability,)) for capability in ("7.2", "8.6")]
    add_engine(deployment, fixed, ("12.0",), backend="tensorrt-rtx")
    outcome = srdeploy("pack", deployment, "--triton", tmp_path / "models", "--name", "sr")
    assert outcome.code == 0 and "TensorRT-RTX" in outcome.err, outcome.err
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["sr_onnx", "sr_tensorrt_360x640"]
    folder = tmp_path / "models" / "sr_tensorrt_360x640"
    config = parsed(folder / "config.pbtxt")
    assert config.backend == "tensorrt" and config.name == folder.name
    assert [list(tensor.dims) for tensor in (config.input[0], config.output[0])] == [
        [1, 3, 360, 640],
        [1, 3, 720, 1280],
    ]
    files = dict(config.cc_model_filenames)
    assert set(files) == {"7.2", "8.6"} and config.default_model_filename in files.values()
    assert [(folder / "1" / files[capability]).read_bytes() for capability in ("7.2", "8.6")] == plans
    assert sorted(path.name for path in (folder / "1").iterdir()) == sorted(files.values())
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    (spec,) = config.optimization.cuda.graph_spec
    assert config.optimization.cuda.graphs and spec.batch_size == 0
    assert list(spec.input["lr"].dim) == [1, 3, 360, 640]


def test_a_dynamic_engine_captures_the_sizes_asked_for(srdeploy, deployment, tmp_path, parsed):
    add_engine(deployment, ((64, 64), (360, 640), (1080, 1920)), ("8.7",))
    add_engine(deployment, ((144, 144),) * 3, ("8.7",), precision="fp16")
    models = tmp_path / "models"
    assert srdeploy("pack", deployment, "--triton", models, "--size", "144,720x1280").code == 0
    config = parsed(models / "net_tensorrt_64x64-360x640-1080x1920" / "config.pbtxt")
    assert list(config.input[0].dims) == list(config.output[0].dims) == [1, 3, -1, -1]
    specs = config.optimization.cuda.graph_spec
    assert [list(spec.input["lr"].dim) for spec in specs] == [[1, 3, 144, 144], [1, 3, 720, 1280]]
    assert parsed(models / "net_tensorrt_144x144_fp16" / "config.pbtxt").input[0].dims[2] == 144


def test_engines_of_another_graph_or_damaged_are_left_out_and_named(srdeploy, deployment, tmp_path):
    add_engine(deployment, ((16, 16),) * 3, ("8.6",), graph_sha256="ab" * 32)
    add_engine(deployment, ((32, 32),) * 3, ("8.6",))
    (deployment / "engines" / "tensorrt_32x32_sm86.engine").write_bytes(b"other")
    outcome = srdeploy("pack", deployment, "--triton", tmp_path / "models")
    assert outcome.code == 0 and "another graph" in outcome.err and "tensorrt_32x32_sm86.engine" in outcome.err
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net_onnx"]


def test_fixed_graphs_are_models_each(srdeploy, deployment, tmp_path, parsed):
    manifest = open_deployment(deployment).manifest
    fixed = dataclasses.replace(
        manifest.graphs[0], file="model_8x10.onnx", size=FIXED_SIZE, sha256=sha256_of(deployment / "model_8x10.onnx")
    )
    save_manifest(deployment, dataclasses.replace(manifest, graphs=(*manifest.graphs, fixed)))
    assert srdeploy("pack", deployment, "--triton", tmp_path / "models").code == 0
    folder = tmp_path / "models" / "net_onnx_8x10"
    config = parsed(folder / "config.pbtxt")
    assert list(config.input[0].dims) == [1, 3, 8, 10] and list(config.output[0].dims) == [1, 3, 16, 20]
    assert (folder / "1" / "model.onnx").read_bytes() == (deployment / "model_8x10.onnx").read_bytes()
    assert (tmp_path / "models" / "net_onnx" / "config.pbtxt").is_file()


def test_pixels_are_bytes_in_rows(model_config):
    from google.protobuf import text_format

    contract = IOContract(255.0, layout="NHWC", dtype="uint8")
    text = config_text(Model("m", "onnxruntime", (4, 6), 2, contract, {}))
    config = text_format.Parse(text, model_config())
    assert config.input[0].data_type == 2 and list(config.output[0].dims) == [1, 8, 12, 3]


def test_nothing_is_half_written(srdeploy, deployment, tmp_path):
    models = tmp_path / "models"
    add_engine(deployment, ((16, 16),) * 3, ("8.6",))
    (models / "net_tensorrt_16x16").mkdir(parents=True)
    (models / "net_tensorrt_16x16" / "mine").write_text("mine")
    outcome = srdeploy("pack", deployment, "--triton", models)
    assert outcome.code == 2 and "exists already" in outcome.err
    assert [str(path.relative_to(models)) for path in models.rglob("*") if path.is_file()] == [
        "net_tensorrt_16x16/mine"
    ]
    assert sorted(path.name for path in models.iterdir()) == ["net_tensorrt_16x16"], "no model without the other"
    assert srdeploy("pack", deployment, "--triton", models, "--force").code == 0
    assert not (models / "net_tensorrt_16x16" / "mine").exists()


def test_names_that_triton_does_not_take(srdeploy, deployment, tmp_path):
    for name in ("../x", "", ".x", "a b", "a/b"):
        assert srdeploy("pack", deployment, "--triton", tmp_path / "models", "--name", name).code == 2, name
    assert not (tmp_path / "models").exists()


def test_text_is_escaped_and_wrong_fields_are_found(tmp_path, parsed):
    """The check itself: the real descriptor refuses what is not in it, so the tests above can fail."""
    from google.protobuf import text_format

    model = Model("m", "onnxruntime", None, 2, IOContract(1.0), {}, cache='a"b\\c\nd\u00e9', origin="two\nlines")
    (tmp_path / "config.pbtxt").write_text(config_text(model), encoding="utf-8")
    (accelerator,) = parsed(tmp_path / "config.pbtxt").optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["trt_engine_cache_path"] == 'a"b\\c\nd\u00e9'
    for wrong in (
        "max_batch: 0\n",
        'input [ { name: "x" shape: [ 1 ] } ]\n',
        "optimization { cuda { graph: true } }\n",
    ):
        (tmp_path / "config.pbtxt").write_text(config_text(model) + wrong, encoding="utf-8")
        with pytest.raises(text_format.ParseError):
            parsed(tmp_path / "config.pbtxt")
    assert dataclasses.is_dataclass(model)
