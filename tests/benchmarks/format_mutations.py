"""Every JSON and TOML format of srdeploy, mutated as somebody would who knows what a field means, through the commands.

    python tests/benchmarks/format_mutations.py [--times 300] [--seed 0]

Each mutation goes through the command that reads the format, in this process. Good is: no traceback; and exit code 4
with the key named, or the command works as before (a note is changed, a threshold is another number), or it judges (1,
5) or goes on to what the file has no part in (2, 3).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.bench.measure import summary  # noqa: E402
from sr_deploy.bench.result import Point, Result  # noqa: E402
from sr_deploy.bundle.layout import INDEX_NAME  # noqa: E402
from sr_deploy.cli import main as srdeploy  # noqa: E402
from sr_deploy.core.deployment.plan import Plan  # noqa: E402
from tests.benchmarks.bundle_fuzz import archive, canonical, forged, small_bundle  # noqa: E402

#: What takes the place of a value: other types, numbers at and beyond the ends, nesting, controls, wrong lists.
VALUES: Tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"),
    -float("inf"), "", "four", "0", "1e9", "\x1b[31m", "a\nb::error ::x", "[/b][red]", "../../etc/passwd",
    "/etc/passwd", "\x00", "é\u202e", "x" * 5000, [], [None], [[]], [1, 2, 3], ["a"], {}, {"a": {}}, {"": None},
    [0, 0], [-1, 4], [1e9, 4],
)  # fmt: skip

Place = Tuple[Any, ...]


@dataclass
class Tally:
    """What became of the mutations of one format."""

    refused: int = 0
    named: int = 0
    passed: int = 0
    wrong: List[str] = field(default_factory=list)


def places(value: Any, place: Place = ()) -> List[Place]:
    """Where something stands in a document, the document itself included; of long lists the first three entries."""
    inner: List[Tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))[:3]
    return [place] + [found for key, entry in inner for found in places(entry, (*place, key))]


def mutated(rng: random.Random, good: Any) -> Tuple[Any, str, str]:
    """(the document, what was done, the key that a message must name)."""
    document = copy.deepcopy(good)
    place = rng.choice(places(document)[1:])
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    last, named = place[-1], next(str(key) for key in reversed(place) if isinstance(key, str))
    how = rng.choice(("value", "value", "value", "drop", "add", "nest", "double"))
    if how == "value":
        parent[last] = rng.choice(VALUES)
    elif how == "drop":
        del parent[last]
    elif how == "nest":
        parent[last] = [parent[last]] if rng.random() < 0.5 else {"x": parent[last]}
    elif how == "add" and isinstance(parent, dict):
        named = rng.choice(("surprise", "schema2", "\x1b]0;x", "a b"))
        parent[named] = rng.choice(VALUES)
    elif isinstance(parent, list):
        parent.append(rng.choice(VALUES))
    else:
        return document, f"double {place}", named
    return document, f"{how} {place}", named


def as_json(document: Any, doubled: str = "") -> str:
    """JSON; ``doubled`` is a key that is written twice."""
    text = json.dumps(document)
    return text.replace(f'"{doubled}":', f'"{doubled}": 1, "{doubled}":', 1) if doubled else text


def as_toml(document: Any, doubled: str = "") -> str:
    """TOML of what TOML can say; inline tables throughout. What has no form there is left as JSON's word for it."""
    lines = [f"{_toml_key(key)} = {_toml(value)}" for key, value in document.items()]
    if doubled in document:
        lines.append(f"{_toml_key(doubled)} = 1")
    return "\n".join(lines) + "\n"


def _toml_key(key: str) -> str:
    return json.dumps(key).replace("\x7f", "\\u007f")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value)


@dataclass(frozen=True)
class Format:
    """A format under attack.

    Attributes:
        name: for the table.
        good: a document that is right.
        write: writes a mutated one where the command looks; takes the document and a doubled key.
        command: arguments of ``srdeploy``.
        beyond: words of an error that comes after the file was taken.
    """

    name: str
    good: Any
    write: Callable[[Any, str], None]
    command: Tuple[str, ...]
    beyond: str = "\0"


def run(arguments: Tuple[str, ...]) -> Tuple[int, str, str]:
    """(exit code, all that was printed, the traceback or "") of a command in this process; code -1 with a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            srdeploy(list(arguments))
            code, trace = 0, ""
        except SystemExit as stop:
            code, trace = int(stop.code or 0), ""
        except BaseException:
            code, trace = -1, traceback.format_exc()
    return code, out.getvalue() + err.getvalue(), trace


def attack(one: Format, times: int, seed: int) -> Tally:
    """Mutate one format so many times."""
    rng, tally = random.Random(f"{seed} {one.name}"), Tally()
    one.write(one.good, "")
    code, printed, trace = run(one.command)
    assert (code != 4 or one.beyond in printed) and not trace, (one.name, code, printed, trace)
    for _ in range(times):
        document, how, key = mutated(rng, one.good)
        one.write(document, key if how.startswith("double") else "")
        code, printed, trace = run(one.command)
        if trace or code == -1:
            tally.wrong.append(f"{one.name}: {how}: {trace.strip().splitlines()[-1]}\n{trace}")
        elif "\x1b]" in printed or "\n::error" in printed:
            tally.wrong.append(f"{one.name}: {how}: a control or a command of a CI log came through")
        elif code == 4 and one.beyond not in printed:
            tally.refused += 1
            # How a key with control characters is shown is its escape.
            shown = key.encode("unicode_escape").decode("ascii")
            tally.named += key in printed or shown in printed
        else:
            tally.passed += 1
    one.write(one.good, "")
    return tally


def sweep_result() -> Dict[str, Any]:
    """A result of two sizes and a failure, with all that a result may hold."""
    samples = tuple(0.01 + 1e-5 * index for index in range(30))
    points = tuple(
        Point(
            (edge, edge), "compute", "onnxruntime", "a device", {"precision": "fp32", "version": "1"}, "a" * 64,
            4 * edge * edge, samples_s=samples, median_low_s=0.01, median_high_s=0.02, effective_samples=30.0,
            peak_memory={"rss_bytes": 10**8}, sensors={"before": {}, "during": [], "after": {}}, **summary(samples),
        )
        for edge in (64, 128)
    )  # fmt: skip
    failed = Point((256, 256), "compute", "onnxruntime", "a device", {}, failure="out of memory")
    table = {"size": (64, 64), "scope": "compute", "median_s": 0.01, "builds": 1, "processes": 5, "runs": 10,
             "run_s": 1e-4, "process_s": 1e-4, "build_s": None, "process_medians_s": (0.01,) * 5,
             "left_out": ()}  # fmt: skip
    options = {"scope": "compute", "confidence": 0.95, "value_range": 1.0, "timer": "auto"}
    environment = {"cpu": "x", "gpus": [{"name": "a device"}], "packages": {"numpy": "1"}}
    result = Result("net", environment, options, (*points, failed), "2026-05-01T12:00:00+00:00", (table,))
    return json.loads(json.dumps(result.to_dict()))


QUALITY = {
    "schema": 2, "convention": "BT.601 Y", "precision": "fp32", "ran": [
        {"runtime": "onnxruntime", "device": "CPU", "file": "model.onnx", "sha256": "ab" * 32, "sizes": ["8x8"]}],
    "images": [{"name": "a", "psnr_y": 30.0, "ssim_y": 0.9, "torch_psnr_y": 30.1, "difference": 0.01}],
    "mean": {"psnr_y": 30.0, "ssim_y": 0.9, "torch_psnr_y": 30.1}, "largest_difference": 0.01, "tolerance": 0.05,
    "loss_db": 0.1, "tolerance_db": None,
}  # fmt: skip
BUDGET = {
    "threshold_percent": 3.0, "floor_us": 20.0, "run_noise_percent": 10.0,
    "quality": {"min_psnr_y": 20.0, "min_ssim_y": 0.1, "max_psnr_y_loss": 0.5, "max_difference": 1.0},
    "devices": {"a device": {"sizes": {"64x64": {"max_median_ms": 100.0, "max_p99_ms": 100.0}}}},
}  # fmt: skip
MATRIX = {
    "deployments": ["net"], "sizes": ["64", "64x80", 96], "backends": ["onnxruntime"], "precisions": ["fp32"],
    "scopes": ["compute", "end-to-end"], "threads": [1, 2], "seconds": 0.1, "iterations": 3, "ci_percent": 5.0,
    "max_seconds": 1.0, "timer": "auto", "cuda_graph": False, "wait": "auto",
}  # fmt: skip
INVENTORY = {
    "boards": {
        "nx": {"host": "192.0.2.7", "user": "me", "port": 22, "key": "~/k", "python": "python3",
               "srdeploy": "srdeploy", "workdir": "~/w"},
        "orin": {"host": "orin.lab"},
    },
}  # fmt: skip
RECIPE = {"schema": 1, "backend": "onnxruntime", "sizes": ["8x8", "16"], "workspace_mib": 64, "memory_budget": 10**8,
          "plan": "int8"}  # fmt: skip


def formats(folder: Path) -> Tuple[Format, ...]:
    """All formats, each with its good document in ``folder``. Exports the demo's network and builds an engine."""
    from sr_deploy.pipeline.demo import ASSETS

    net = folder / "net"
    code, printed, trace = run(("export", str(ASSETS / "demo_x2.safetensors"), "-o", str(net)))
    assert code == 0, printed + trace
    code, printed, trace = run(("build", str(net), "--backend", "onnxruntime", "--size", "24"))
    assert code == 0, printed + trace
    (engine,) = (net / "engines").glob("*.onnx")
    (folder / "base.json").write_text(json.dumps(sweep_result()))
    (folder / "plan").mkdir()

    def to(path: Path) -> Callable[[Any, str], None]:
        form = as_toml if path.suffix == ".toml" else as_json
        return lambda document, doubled: path.write_text(form(document, doubled), encoding="utf-8")  # type: ignore

    def read(path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))

    # The plan of another graph: what is right is refused for that, before anything is computed.
    plan = Plan("int8", "0" * 64, {"/a/Conv": "int8", "/b/Conv": "float16"}, "float16", {"/b/Conv": "loud"},
                {"x": 0.01}, {"w": (0.5, 0.25)}, {"method": "mse"}, ("a note",))  # fmt: skip
    gate = ("gate", str(folder / "base.json"), str(folder / "base.json"))
    found = (
        Format("manifest", read(net / "manifest.json"), to(net / "manifest.json"), ("inspect", str(net))),
        Format("engine record", read(engine.with_suffix(".json")), to(engine.with_suffix(".json")),
               ("inspect", str(engine))),
        Format("plan", json.loads(json.dumps(plan.__dict__)), to(folder / "plan" / "plan.json"),
               ("build", str(net), "--plan", str(folder / "plan")), "was made for another graph"),
        Format("result", sweep_result(), to(folder / "result.json"), (*gate[:2], str(folder / "result.json"))),
        Format("quality", QUALITY, to(folder / "quality.json"),
               (*gate, "--budget", str(folder / "budget.toml"), "--quality", str(folder / "quality.json"))),
        Format("budget", BUDGET, to(folder / "budget.toml"),
               (*gate, "--budget", str(folder / "budget.toml"), "--quality", str(folder / "quality.json"))),
        Format("matrix", MATRIX, to(folder / "matrix.toml"),
               ("sweep", str(folder / "matrix.toml"), "-o", str(folder / "out"), "--dry-run")),
        # The word that follows names no board: the inventory is read first.
        Format("inventory", INVENTORY, to(folder / "boards.toml"),
               ("remote", "--inventory", str(folder / "boards.toml"), "no board", "bench", str(net))),
        *_bundle_formats(folder),
    )  # fmt: skip
    for one in found:
        one.write(one.good, "")
    return found


def _bundle_formats(folder: Path) -> Tuple[Format, ...]:
    bundle, files = small_bundle(folder / "made")
    members = sorted(files.items())

    def with_recipe(document: Any, doubled: str) -> None:
        changed = {**files, "recipe.toml": as_toml(document, doubled).encode("utf-8", "surrogatepass")}
        bundle.write_bytes(forged(sorted(changed.items())))

    index = json.loads(_index_of(forged(members)))

    def with_index(document: Any, doubled: str) -> None:
        raw = canonical(document) if not doubled else as_json(document, doubled).encode()
        bundle.write_bytes(archive([(INDEX_NAME, raw), *members]))

    out = folder / "unpacked"
    command = ("unpack", str(bundle), "-o", str(out), "--force")
    return (
        Format("recipe", {**RECIPE}, with_recipe, command),
        Format("bundle index", index, with_index, ("inspect", str(bundle))),
    )


def _index_of(bundle: bytes) -> str:
    return bundle[512 : 512 + int(bundle[124:135], 8)].decode()


def main() -> int:
    """Attack every format and print the table; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="srdeploy-mutations-"))
    wrong: List[str] = []
    print(f"{'format':<16}{'mutations':>10}{'exit 4':>8}{'key named':>11}{'harmless':>10}{'wrong':>7}")
    try:
        for one in formats(folder):
            if asked.only in ("", one.name):
                tally = attack(one, asked.times, asked.seed)
                wrong += tally.wrong
                share = f"{tally.named / max(tally.refused, 1):.1%}"
                print(f"{one.name:<16}{asked.times:>10}{tally.refused:>8}{share:>11}{tally.passed:>10}"
                      f"{len(tally.wrong):>7}", flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder)
    print("\n".join(wrong[:10]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
