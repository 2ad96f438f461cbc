"""Lists of the names in TensorRT's and CUDA's Python bindings, for tests/engine/test_bindings_contract.py.

    python tests/benchmarks/bindings_symbols.py --python DIR_OF_INTERPRETERS -o tests/engine/bindings

The wheels of the bindings come without TensorRT's libraries. The extension module is really imported all the same: the
few C functions that it wants are given by empty libraries of the right names, which takes a C compiler, nm and
readelf. Nothing of TensorRT runs; ``dir`` and the signatures in the docstrings give each name and its type. Each wheel
needs the Python of its tag (cp38, cp310): ``--python`` names the folder that holds bin/python3.8 or 3.8.x/bin/python.

There is no wheel of 8.5. Its list is the one of 8.6.1 less what 8.6 added (ADDED_BY_8_6: the classes Builder,
IBuilderConfig and Runtime compared with the binding's 8.5 source, the rest from the release notes of 8.6).
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import enum
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
from pathlib import Path

#: List → requirement; the wheel for CPython of the second.
WHEELS = {
    "tensorrt_8_6": ("tensorrt-bindings==8.6.1", "3.8"),
    "tensorrt_10_3": ("tensorrt-cu12-bindings==10.3.0", "3.10"),
    "tensorrt_10_16": ("tensorrt-cu12-bindings==10.16.1.11", "3.10"),
    "tensorrt_11_0": ("tensorrt-cu13-bindings==11.0.0.114", "3.10"),
    "tensorrt_11_4": ("tensorrt-cu13-bindings==11.4.0.106", "3.10"),
    "tensorrt_rtx_1_7": ("tensorrt-rtx-cu13-bindings==1.7.1.116", "3.10"),
    "cuda_python_11": ("cuda-python==11.8.2", "3.8"),
    "cuda_python_12": ("cuda-python==12.6.2.post1", "3.10"),
    "cuda_python_13": ("cuda-bindings==13.0.3 cuda-pathfinder==1.3.0", "3.10"),
}
PYCUDA = "pycuda==2024.1.2"
#: Class → names that 8.5 does not have yet; "*" is the whole class, "module" are names of the module.
ADDED_BY_8_6 = {
    "IBuilderConfig": {
        "builder_optimization_level", "hardware_compatibility_level", "max_aux_streams", "plugins_to_serialize",
    },
    "Builder": {"get_plugin_registry"},
    "Runtime": {
        "engine_host_code_allowed", "get_plugin_registry", "load_runtime", "temporary_directory",
        "tempfile_control_flags",
    },
    "BuilderFlag": {"ERROR_ON_TIMING_CACHE_MISS", "EXCLUDE_LEAN_RUNTIME", "FP8", "VERSION_COMPATIBLE"},
    "DataType": {"FP8"},
    "ICudaEngine": {"hardware_compatibility_level", "num_aux_streams", "get_tensor_profile_values"},
    "IExecutionContext": {"set_aux_streams"},
    "INetworkDefinition": {"add_cast", "add_normalization", "add_reverse_sequence"},
    "OnnxParser": {"clear_flag", "flags", "get_flag", "get_used_vc_plugin_libraries", "set_flag"},
    "PreviewFeature": {"PROFILE_SHARING_0806"},
    "LayerType": {"CAST", "NORMALIZATION", "REVERSE_SEQUENCE"},
    "HardwareCompatibilityLevel": {"*"},
    "ICastLayer": {"*"},
    "INormalizationLayer": {"*"},
    "IReverseSequenceLayer": {"*"},
    "OnnxParserFlag": {"*"},
    "TempfileControlFlag": {"*"},
    "module": {"fp8"},
}  # fmt: skip
#: C functions that the bindings take from TensorRT's libraries.
_FOREIGN = re.compile(r"(create|getNv|getPlugin|getBuilder|getInfer|initLibNv|getLogger)\w*$|_ZN\d\dnv\w*$")


def stand_in_libraries(extension: Path, folder: Path) -> None:
    """Load empty libraries under the names of TensorRT's, with the C functions that the extension wants."""
    dynamic = subprocess.check_output(["readelf", "-d", str(extension)], universal_newlines=True)
    needed = [name for name in re.findall(r"\(NEEDED\).*\[([^\]]+)\]", dynamic) if name.startswith(("libnv", "libten"))]
    undefined = subprocess.check_output(["nm", "-D", "--undefined-only", str(extension)], universal_newlines=True)
    wanted = [line.split()[-1] for line in undefined.splitlines() if " U " in line]
    source = folder / "functions.c"
    source.write_text("".join(f"void *{name}(void) {{return 0;}}\n" for name in wanted if _FOREIGN.match(name)))
    for index, name in enumerate(needed):
        command = ["cc", "-w", "-shared", "-fPIC", "-o", str(folder / name), "-Wl,-soname," + name]
        subprocess.check_call(command + ([str(source)] if index == 0 else ["-x", "c", os.devnull]))
        ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)


def tensorrt_lines(extension: Path) -> list:
    """One line for the module and for each class: "Name(Base): attribute>type …", base "enum" for
    an enumeration; run by the wheel's own Python."""
    with tempfile.TemporaryDirectory() as folder:
        stand_in_libraries(extension, Path(folder))
        sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
        spec = importlib.util.spec_from_file_location(extension.stem, str(extension))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    classes, plain = {}, set()
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__.startswith("tensorrt"):
            classes[name] = value
            classes.update({f"{name}.{key}": inner for key, inner in vars(value).items() if nested(inner, key)})
        elif not name.startswith("__") and not isinstance(value, types.ModuleType):
            plain.add(name + typed(type(value).__name__ if type(value).__module__.startswith("tensorrt") else ""))
    plain |= names_of_package(extension.parent / "__init__.py") | {"__version__"}
    lines = ["module: " + " ".join(sorted(plain))]
    for name, value in sorted(classes.items()):
        base = "enum" if hasattr(value, "__members__") else value.__mro__[1].__name__
        own = sorted(member_text(key, inner, name, classes) for key, inner in vars(value).items() if key[0] != "_")
        lines.append(f"{name}{'' if base.startswith(('object', 'pybind11')) else f'({base})'}: {' '.join(own)}")
    return lines


def nested(value: object, name: str) -> bool:
    return isinstance(value, type) and not name.startswith("_")


def member_text(name: str, value: object, owner: str, known: dict) -> str:
    """A member with the type that its signature gives: "create_network>INetworkDefinition"; none for an enum's own."""
    if isinstance(value, property):
        document = value.fget.__doc__ if value.fget else ""
    elif isinstance(type(value), type) and "__members__" in dir(type(value)):
        return name + typed("" if type(value).__qualname__ == owner else type(value).__qualname__)
    else:
        document = getattr(value, "__doc__", "")
    # A class that was bound after the method appears under its C++ name, such as nvonnxparser::IParserError.
    found = re.search(r"-> (?:(?:tensorrt\w*\.)+([\w.]+)|nv\w+::(?:v_1_0::)?I?(\w+))", document or "")
    if not found:
        return name
    return name + typed(found.group(1) or next((t for t in (found.group(2), "I" + found.group(2)) if t in known), ""))


def typed(name: str) -> str:
    return ">" + name if name else ""


def names_of_package(init: Path) -> set:
    """Names that the package's own Python adds: functions, classes and plain assignments of its __init__.py."""
    found = set()
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def cuda_lines(folder: Path) -> list:
    """Module-level names of the CUDA runtime binding that have lower-case "cuda" first, and members of small enums."""
    sys.path.insert(0, str(folder))
    try:
        module = __import__("cuda.bindings.runtime", fromlist=["x"])
    except ImportError:
        module = __import__("cuda.cudart", fromlist=["x"])
    names = sorted(name for name in vars(module) if name.startswith("cuda"))
    lines = ["module: " + " ".join(names)]
    for name in names:
        value = getattr(module, name)
        if isinstance(value, type) and issubclass(value, enum.Enum):
            members = sorted(value.__members__)
            few = members if len(members) <= 12 else [member for member in members if member.endswith("Success")]
            lines.append(f"{name}: {' '.join(few)}")
    return lines


#: Names in PyCUDA's C++ source: a class or enumeration, a function or exception of the module, a member of a class.
_PYCUDA = re.compile(
    r"""(?:(?:class_|enum_)<[^;"]*?>\s*\(|^\s*\()\s*"(?P<holder>\w+)"
    | (?:py::def\(\s*"|DECLARE_EXC\()(?P<function>\w+)
    | [.](?:DEF_SIMPLE_\w+|def\w*|add_\w*property\w*|value|staticmethod)\(\s*"?(?P<member>\w+)""",
    re.VERBOSE | re.MULTILINE,
)


def pycuda_lines(sdist: Path) -> list:
    """Names of the module pycuda.driver and its classes, as its C++ and Python source define them."""
    sources = {}
    with tarfile.open(sdist) as archive:
        for name in archive.getnames():
            if name.endswith(("src/wrapper/wrap_cudadrv.cpp", "pycuda/driver.py")):
                sources[name.rsplit("/", 1)[1]] = archive.extractfile(name).read().decode()
    body = ast.parse(sources["driver.py"]).body
    members = {"module": {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}}
    holder = "module"
    for found in _PYCUDA.finditer(sources["wrap_cudadrv.cpp"]):
        if found.group("holder"):
            holder = found.group("holder")
            members["module"].add(holder)
            members.setdefault(holder, set())
        elif found.group("function"):
            members["module"].add(found.group("function"))
        else:
            members[holder].add(found.group("member"))
    return [f"{name}: {' '.join(sorted(found))}" for name, found in members.items()]


def without(lines: list, absent: dict) -> list:
    """The lines less what ``absent`` names."""
    kept = []
    for line in lines:
        head, _, members = line.partition(": ")
        gone = absent.get(head.split("(")[0], set())
        if "*" not in gone:
            kept.append(head + ": " + " ".join(m for m in members.split() if m.split(">")[0] not in gone))
    return kept


def interpreter(folder: Path, version: str) -> str:
    """The Python of a version: FOLDER/bin/python3.8 or FOLDER/3.8.18/bin/python."""
    candidates = [folder / f"bin/python{version}", *sorted(folder.glob(f"{version}.*/bin/python"))]
    return str(next(path for path in candidates if path.exists()))


def downloaded(requirements: str, version: str, folder: Path) -> list:
    """The wheels of the requirements, in their order, for CPython ``version`` on Linux x86-64."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "--only-binary", ":all:"]
    for platform in ("2_17", "2_28", "2_35", "2_24"):
        command += ["--platform", f"manylinux_{platform}_x86_64"]
    command += ["--platform", "manylinux2014_x86_64", "--python-version", version]
    subprocess.check_call(command + requirements.split())
    stems = [re.split("[=]", requirement)[0].replace("-", "_") for requirement in requirements.split()]
    return [next(iter(folder.glob(f"{stem}-*.whl"))) for stem in stems]


def write_list(path: Path, title: str, source: Path, lines: list) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    head = [f"# {title}", f"# from {source.name}", f"# sha256 {digest}", "# by tests/benchmarks/bindings_symbols.py"]
    path.write_text("\n".join(head + lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes, {len(lines)} lines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, help="folder with the interpreters")
    parser.add_argument("-o", "--out", type=Path, default=Path("tests/engine/bindings"))
    parser.add_argument("--only", help="names of lists, by commas")
    parser.add_argument("--inspect", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inspect:
        print("\n".join((tensorrt_lines if given.inspect.suffix == ".so" else cuda_lines)(given.inspect)))
        return
    for name, (requirement, version) in WHEELS.items():
        if given.only and name not in given.only.split(","):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            wheels = downloaded(requirement, version, Path(scratch))
            unpacked, wheel = Path(scratch) / "x", wheels[0]
            for each in wheels:
                zipfile.ZipFile(each).extractall(unpacked)
            subject = unpacked if name.startswith("cuda") else next(unpacked.rglob("tensorrt*.so"))
            command = [interpreter(given.python, version), str(Path(__file__)), "--inspect", str(subject)]
            lines = subprocess.check_output(command, universal_newlines=True).splitlines()
            write_list(given.out / f"{name}.txt", f"names of {requirement}", wheel, lines)
            if name == "tensorrt_8_6":
                title = "names of TensorRT 8.5, which has no wheel: those of 8.6.1 less what 8.6 added"
                write_list(given.out / "tensorrt_8_5.txt", title, wheel, without(lines, ADDED_BY_8_6))
    if not given.only or "pycuda" in given.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
            # Its metadata is asked for with this interpreter's setuptools and numpy: nothing of CUDA is needed.
            subprocess.check_call([*command, "--no-build-isolation", "-d", scratch, PYCUDA])
            sdist = next(Path(scratch).glob("pycuda*"))
            write_list(given.out / "pycuda.txt", f"names of {PYCUDA}, from its source", sdist, pycuda_lines(sdist))


if __name__ == "__main__":
    main()
