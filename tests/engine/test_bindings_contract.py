"""Every name of TensorRT and CUDA that the product uses exists in the real bindings of each generation it is used on.

The lists in tests/engine/bindings come from the bindings' own wheels (tests/benchmarks/bindings_symbols.py).
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import sr_deploy
from sr_deploy.core.host import cuda_device
from tests.engine.bindings_contract import LISTS, PARAMETERS, RTX, TENSORRT, Findings, Walker, is_name, read_bindings
from tests.run.standin_cuda_python import signatures

PRODUCT = Path(sr_deploy.__file__).parent
GENERATIONS = [read_bindings(name) for name in TENSORRT]


@functools.lru_cache(maxsize=None)
def product() -> tuple:
    """The files that speak TensorRT, and names that others import: what those get is any generation.

    The former import a flavour, or take its module or, in engine/, one of its objects as an argument. All are parsed
    where a test asks for it, as every worker imports this file.
    """
    speaking, imported = [], set()
    for path in sorted(PRODUCT.rglob("*.py")):
        text = path.read_text("utf-8")
        nodes = list(ast.walk(ast.parse(text)))
        objects = {node.arg for node in nodes if isinstance(node, ast.arg) and is_name(node.annotation, "Any")}
        wanted = set(PARAMETERS) if path.parent.name == "engine" else {"trt"}
        if objects & wanted or "import_flavour(" in text:
            speaking.append(path)
            continue
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sr_deploy."):
                imported |= {name.name for name in node.names}
    return speaking, frozenset(imported)


def walked(extra: str = "") -> Findings:
    """All files that speak TensorRT at once, with ``extra`` at the end of engine/tensorrt.py."""
    files, entries = product()
    sources = {path: path.read_text(encoding="utf-8") for path in files}
    sources[PRODUCT / "engine/tensorrt.py"] += extra
    return Walker(sources, GENERATIONS, entries).walk()


def test_every_name_exists_in_every_generation_that_reaches_it():
    assert not walked().faults


def test_the_subject_is_there():
    """The walk sees the calls that each generation's path is made of."""
    names = {path.relative_to(PRODUCT).as_posix() for path in product()[0]}
    assert {"engine/tensorrt.py", "engine/flavour.py", "run/tensorrt.py"} <= names
    used = walked().used
    everywhere = {
        ("Builder", "build_serialized_network"), ("OnnxParser", "parse_from_file"), ("ITensor", "dtype"),
        ("IExecutionContext", "execute_async_v3"), ("ICudaEngine", "get_tensor_name"), ("ParserError", "desc"),
        ("IBuilderConfig", "set_memory_pool_limit"), ("ITimingCache", "serialize"), ("TensorIOMode", "INPUT"),
    }  # fmt: skip
    for generation in TENSORRT:
        assert everywhere <= {(owner, name) for where, owner, name in used if where == generation}, generation
    reaching = {(owner, name): {where for where, *rest in used if rest == [owner, name]} for _, owner, name in used}
    assert reaching["IBuilderConfig", "set_compute_capability"] == {RTX}
    assert reaching["IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"] == {RTX}
    assert reaching["NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"] == {"tensorrt_8_5", "tensorrt_8_6"}
    assert reaching["IBuilderConfig", "progress_monitor"] == set(TENSORRT) - {"tensorrt_8_5", "tensorrt_8_6"}


ADDED = {
    "a name that nobody has": ("trt.Foo", "module.Foo does not exist in tensorrt_8_5"),
    "8.6's": ("config.builder_optimization_level = 5", "builder_optimization_level does not exist in tensorrt_8_5"),
    "removed in 10": ("engine.num_bindings", "ICudaEngine.num_bindings does not exist in tensorrt_10_3"),
    "removed in 11": ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16 does not exist in tensorrt_11_0"),
    "of another generation's branch": (
        "if not hasattr(trt.BuilderFlag, 'INT8'):\n        config.int8_calibrator = 1",
        "int8_calibrator does not exist in tensorrt_11_0",
    ),
    "deep in a chain": (
        "builder.create_network(0).get_layer(0).get_output(0).nothing",
        "ITensor.nothing does not exist in tensorrt_8_5",
    ),
    "a typing error in hasattr": ("hasattr(trt.BuilderFlag, 'OBAY')", "asks BuilderFlag for 'OBAY', which no"),
    "in a loop": ("for error in (config.x for _ in ()):\n        error.y", "IBuilderConfig.x does not exist"),
}


@pytest.mark.parametrize("what", ADDED)
def test_a_wrong_name_is_found(what):
    statement, fault = ADDED[what]
    source = f"\n\ndef added(trt: Any, config: Any, builder: Any, engine: Any):\n    {statement}\n"
    faults = walked(source).faults
    assert any(fault in line for line in faults), faults


GUARDED = (
    "if hasattr(config, 'builder_optimization_level'):\n        config.builder_optimization_level = 5",
    "value = config.builder_optimization_level if hasattr(config, 'builder_optimization_level') else 3",
    "if hasattr(trt.BuilderFlag, 'FP16') and builder.platform_has_fast_fp16:\n        trt.BuilderFlag.FP16",
    "old = hasattr(engine, 'num_bindings')\n    if not old:\n        return\n    engine.num_bindings",
    "getattr(config, 'builder_optimization_level', None)",
)


@pytest.mark.parametrize("statement", GUARDED)
def test_a_guarded_name_is_let_pass(statement):
    source = f"\n\ndef added(trt: Any, config: Any, builder: Any, engine: Any):\n    {statement}\n"
    assert walked(source).faults == walked().faults


def test_an_object_of_unknown_class_is_a_fault():
    faults = walked("\n\ndef added(thing: Any):\n    thing.anything\n").faults
    assert any("thing of added is in neither PARAMETERS nor OTHER" in line for line in faults)


def test_the_list_of_rtx_is_what_the_module_here_has():
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if trt.__version__ != "1.7.1.116":
        pytest.skip(f"the list is of 1.7.1.116, here is {trt.__version__}")
    listed = read_bindings(RTX)
    for name, (_, attributes) in listed.classes.items():
        if name != "module" and "." not in name:
            have = {key for key in vars(getattr(trt, name)) if not key.startswith("_")}
            assert set(attributes) <= have, name
            # The package's own Python adds itemsize to DataType.
            assert {key for key in have if listed.lookup(name, key) is None} <= {"itemsize"}, name


@pytest.mark.parametrize("name", [*TENSORRT, "cuda_python_11", "cuda_python_12", "cuda_python_13", "pycuda"])
def test_each_list_says_where_it_comes_from(name):
    head = (LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()[:4]
    assert head[0].startswith("# names of") and head[1].endswith((".whl", ".tar.gz"))
    assert head[2].startswith("# sha256 ") and len(head[2].split()[-1]) == 64


def cuda_nodes(file: str, function: str) -> list:
    """The syntax of a class over a binding, and of the function of cuda_device.py that asks the same binding."""
    trees = [ast.parse((PRODUCT / name).read_text(encoding="utf-8")) for name in (file, "core/host/cuda_device.py")]
    asking = [node for node in trees[1].body if isinstance(node, ast.FunctionDef) and node.name == function]
    return [node for tree in (trees[0], *asking) for node in ast.walk(tree)]


@pytest.mark.parametrize("name", ["cuda_python_11", "cuda_python_12", "cuda_python_13"])
def test_cuda_python_of_each_generation(name):
    listed, calls, chains = read_bindings(name), set(), set()
    functions, classes = signatures(name.rpartition("_")[2])
    for node in cuda_nodes("run/cuda_python.py", "_told_by_runtime"):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("self._call", "ask"):
            calls.add(node.args[0].value)
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node).replace("self._runtime.", "runtime.")
            chain = chain.replace("kinds.", "runtime.cudaDeviceAttr.").split(".")
            if chain[0] == "runtime" and len(chain) > 1:
                chains.add(tuple(chain[1:]))
    assert {"cudaMalloc", "cudaGraphInstantiateWithFlags", "cudaDeviceGetPCIBusId"} <= calls
    assert {("cudaError_t", "cudaSuccess"), ("cudaDeviceAttr", "cudaDevAttrIntegrated")} <= chains
    assert calls <= set(functions)
    for function in calls:
        assert listed.lookup("module", function) is not None, function
    for chain in chains:
        assert listed.lookup("module", chain[0]) is not None, chain
        if len(chain) > 1:
            assert f"{chain[1]}=" in classes[chain[0]], chain


def test_pycuda():
    listed = read_bindings("pycuda")
    held = {"_driver": "module", "_context": "Context", "_stream": "Stream", "memory": "DeviceAllocation"}
    held.update({"event": "Event", "start": "Event", "flags": "event_flags", "driver": "module", "Device": "Device"})
    held.update({"device": "Device", "device_attribute": "device_attribute", "Context": "Context"})
    found = set()
    for node in cuda_nodes("run/pycuda.py", "_told_by_pycuda"):
        if isinstance(node, ast.Attribute):
            value = node.value
            owner = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", None)
            if owner in held:
                found.add((held[owner], node.attr))
    assert {("module", "mem_alloc"), ("Stream", "synchronize"), ("Event", "time_till")} <= found
    assert not [pair for pair in found if listed.lookup(*pair) is None]
    assert listed.lookup("Device", "retain_primary_context") is not None
    assert listed.lookup("Context", "push") is not None


def test_the_bindings_that_are_imported_are_those_of_the_lists():
    assert cuda_device.BINDINGS == ("cuda.bindings.runtime", "cuda.cudart", "pycuda.driver")
    for generation, module in (("11", "cuda.cudart"), ("13", "cuda.bindings.runtime")):
        head = (LISTS / f"cuda_signatures_{generation}.txt").read_text(encoding="utf-8").splitlines()[:3]
        assert head[0] == f"# signatures of {module}" and head[1].endswith(".whl") and head[2].startswith("# sha256 ")
