"""First contact with TensorRT: builds, read-backs, pictures and times of the prepared deployments, by the product.

Not run on a GPU yet: the calls are the product's own (pipeline/engines/, run/tensorrt.py) and, for the inspector,
``create_engine_inspector``, which every TensorRT from 8.5 on has.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.host.rtx import rtx_capabilities
from sr_deploy.core.media.sample import sample_for
from sr_deploy.engine.flavour import flavours, import_flavour, logger_of
from sr_deploy.engine.manifest import EngineManifest, open_engine
from sr_deploy.run.settings import DeviceSettings
from tests.hardware.material import largest_step
from tests.hardware.on_cuda import nothing
from tests.hardware.rows import Rows, StillOpen

#: 8-bit steps that one value may differ from float32 on the CPU. Wide: this asks whether an engine is right at all. On
#: this picture, noise and edges, SPAN's typed graphs in ONNX Runtime differ by 0.4 in fp16 and by 39.5 in int8.
ALLOWED = {"fp32": 0.25, "fp16": 4.0, "int8": 64.0}
TIMED = 50


@dataclass(frozen=True)
class Case:
    """One engine to build and to judge. ``profile`` makes it dynamic; ``size`` is what runs."""

    deployment: Path
    flavour: str
    precision: str
    size: Size
    profile: Optional[Tuple[Size, Size, Size]] = None

    @property
    def name(self) -> str:
        """As the rows call it."""
        kind = "dynamic" if self.profile else format_size(self.size)
        return f"{self.flavour} {self.deployment.name} {self.precision} {kind}"


def flavour_here() -> str:
    """The TensorRT to ask: the classic one, else RTX where it knows this GPU."""
    gpus, here = this_machine().gpus, {flavour.name for flavour in flavours()}
    if not gpus:
        raise StillOpen("no GPU")
    if "tensorrt" in here:
        return "tensorrt"
    if "tensorrt-rtx" in here and gpus[0].compute_capability in rtx_capabilities():
        return "tensorrt-rtx"
    raise StillOpen(f"no TensorRT imports that runs on {gpus[0].name}")


def engines(rows: Rows, material: Path, work: Path, network: str) -> None:
    """One network in every precision and size; the questions of one size come before the next size."""
    flavour = rows.look(f"a TensorRT for {network}", flavour_here)
    if flavour is None:
        return
    known = json.loads((material / "material.json").read_text("utf-8"))
    deployment = copied(material / network, work)
    for size in known["sizes"]:
        times: Dict[str, float] = {}
        for precision in known["precisions"]:
            found = judge(rows, Case(deployment, flavour, precision, tuple(size)), work)
            if found:
                times[precision] = found["graph_ms"] or found["event_ms"]
        if {"fp16", "int8"} <= set(times):
            at = f"{flavour} {network} {format_size(tuple(size))}"
            rows.look(f"{at}: INT8 against FP16", lambda times=times: f"{times['fp16'] / times['int8']:.2f} × as fast")


def special(rows: Rows, material: Path, work: Path, network: str) -> None:
    """Bytes in and out, a range of sizes, a float32 island, two builds with one timing cache."""
    flavour = rows.look("a TensorRT for the special cases", flavour_here)
    if flavour is None:
        return
    rows.look(f"{flavour} island: float32 LayerNorm in float16", lambda: island(flavour, material / "island"))
    sizes = [tuple(size) for size in json.loads((material / "material.json").read_text("utf-8"))["sizes"]]
    judge(rows, Case(copied(material / f"{network}-uint8", work), flavour, "fp32", sizes[0]), work)
    deployment = copied(material / network, work)
    low, high = min(sizes), max(sizes)
    profile = ((low[0] // 2, low[1] // 2), low, high)
    judge(rows, Case(deployment, flavour, "fp32", high, profile), work)
    rows.look(f"{flavour}: two builds with one timing cache", lambda: timing_cache(flavour, deployment, sizes[0]))


def copied(deployment: Path, work: Path) -> Path:
    """A deployment of its own: nothing is written into the material."""
    target = work / deployment.name
    if not target.exists():
        shutil.copytree(deployment, target)
    return target


def judge(rows: Rows, case: Case, work: Path) -> Optional[Dict[str, Any]]:
    """Build, keep the inspector's account, compare the picture, take times. Gives the times."""
    manifest = rows.look(f"{case.name}: build", lambda: build(case), lambda made: f"{made.build_seconds:.1f} s")
    kept = [path for path in sorted((case.deployment / "engines").glob("*.engine*")) if path.suffix != ".json"]
    for path in kept if manifest is None else [case.deployment / "engines" / manifest.file]:
        # Of a refused engine too, where the product has kept it.
        rows.look(f"{case.name}: inspector", lambda path=path: inspected(case.flavour, path, work / "layers"))
    if manifest is None:
        return None
    engine = case.deployment / "engines" / manifest.file
    rows.look(f"{case.name}: picture", lambda: picture(case, engine), lambda steps: f"{steps:.3f} of 255 at most")
    return rows.look(f"{case.name}: times", lambda: timed(case, engine), told_times)


def build(case: Case) -> EngineManifest:
    """By the product's own command."""
    from sr_deploy.pipeline.engines.build import build_engines
    from sr_deploy.pipeline.engines.request import BuildOptions
    from sr_deploy.pipeline.precision.deployed_plan import precision_options

    options = BuildOptions(
        case.deployment,
        case.flavour,
        sizes=() if case.profile else (case.size,),
        profile=case.profile,
        precision=None if case.precision == "fp32" else precision_options(case.precision, None),
        force=True,
    )
    (manifest,) = build_engines(options)
    return manifest


def inspected(flavour: str, engine: Path, folder: Path) -> str:
    """Write what the engine inspector says of a plan, before anybody judges it."""
    trt = import_flavour(flavour)
    runtime = trt.Runtime(logger_of(flavour))
    loaded = runtime.deserialize_cuda_engine(engine.read_bytes())
    if loaded is None:
        raise StillOpen("the plan does not load")
    text = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{engine.parent.parent.name}_{engine.stem}.json").write_text(text, encoding="utf-8")
    return f"{len(json.loads(text)['Layers'])} layers"


def picture(case: Case, engine: Path) -> float:
    """Largest difference from the expected picture in 8-bit steps."""
    from sr_deploy.run.base import upscale
    from sr_deploy.run.tensorrt import runner_from_engine

    contract = open_deployment(case.deployment).manifest.contract
    runner = runner_from_engine(engine, open_engine(engine))
    try:
        made = upscale(runner, sample_for(contract, case.size))
    finally:
        runner.close()
    steps = largest_step(made, case.deployment, contract, case.size)
    if steps > ALLOWED[case.precision] + (1 if contract.dtype == "uint8" else 0):
        raise AssertionError(f"{steps:.2f} of 255 from the expected picture, allowed are {ALLOWED[case.precision]}")
    return steps


def timed(case: Case, engine: Path) -> Dict[str, Any]:
    """Median milliseconds of one run by events, by the host's clock, and by events of a graph's replay."""
    from sr_deploy.run.tensorrt import runner_from_engine

    lr = sample_for(open_deployment(case.deployment).manifest.contract, case.size)
    runner = runner_from_engine(engine, open_engine(engine))
    try:
        runner.prepare(case.size)
        runner.upload(lr)
        by_event = median_ms(runner.timed_compute)
        by_host = median_ms(lambda: host_seconds(runner))
        by_graph, why = None, ""
        try:
            runner.configure(DeviceSettings(cuda_graph=True))
            runner.prepare(case.size)
            runner.upload(lr)
            by_graph = median_ms(runner.timed_compute)
        except Exception as error:
            # A binding that captures nothing, or a graph that is not right: the other two times stand.
            why = " ".join(str(error).split())
    finally:
        runner.close()
    return {"event_ms": by_event, "host_ms": by_host, "graph_ms": by_graph, "graph_problem": why}


def told_times(told: Dict[str, Any]) -> str:
    """The three in words."""
    replay = f"{told['graph_ms']:.3f} ms by graph" if told["graph_ms"] else f"no graph ({told['graph_problem']})"
    return f"{told['event_ms']:.3f} ms by events, {told['host_ms']:.3f} ms by the host, {replay}"


def host_seconds(runner: Any) -> float:
    """One run from the call to the end."""
    started = time.perf_counter()
    runner.compute()
    runner.synchronize()
    return time.perf_counter() - started


def median_ms(once: Any) -> float:
    """Of TIMED runs, after a fifth as many that do not count."""
    return 1e3 * statistics.median([seconds_of(once()) for _ in range(TIMED + TIMED // 5)][TIMED // 5 :])


def seconds_of(told: Any) -> float:
    """The device's seconds of a run, which a runner may tell beside other times."""
    return float(told[0] if isinstance(told, tuple) else told)


def island(flavour: str, folder: Path) -> str:
    """Build the float16 graph with its float32 LayerNorm: the read-back must not refuse it."""
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph, is_strongly_typed

    if not is_strongly_typed(flavour):
        raise StillOpen("TensorRT 8 takes no float16 graph; its layers are held, see the networks in fp16")
    types = json.loads((folder / "nodes.json").read_text("utf-8"))
    built = engine_from_graph(
        flavour, folder / "model.onnx", None, options=EngineOptions(precision="fp16", planned=types)
    )
    refusal = getattr(built, "refusal", None)
    if refusal is not None:
        raise refusal
    return f"built in {built.seconds:.1f} s and not refused"


def timing_cache(flavour: str, deployment: Path, size: Size) -> str:
    """Seconds without, with an empty, and with a full timing cache."""
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph

    if flavour != "tensorrt":
        raise StillOpen(f"{flavour} times nothing while it builds")
    cache = deployment / "engines" / "first_contact.timing.cache"
    cache.unlink(missing_ok=True)
    graph = deployment / "model.onnx"
    seconds = [
        engine_from_graph(flavour, graph, (size,) * 3, options=EngineOptions(timing_cache=path)).seconds
        for path in (None, cache, cache)
    ]
    return "{:.1f} s without, {:.1f} s into an empty one, {:.1f} s from it".format(*seconds)


def rtx(rows: Rows, material: Path) -> None:
    """TensorRT-RTX's parser and builder, which need no GPU, and its plans of several GPUs here."""
    if "tensorrt-rtx" not in {flavour.name for flavour in flavours()}:
        rows.look("TensorRT-RTX", nothing("it does not import"))
        return
    network = json.loads((material / "material.json").read_text("utf-8"))["networks"][0]
    rows.look("TensorRT-RTX: build for SM86 without its GPU", lambda: build_for_86(material / network))
    for path in sorted((material / "rtx").glob("*.engine")):
        rows.look(f"TensorRT-RTX: validity of the plan {path.stem}", lambda path=path: validity(path))
        rows.look(f"TensorRT-RTX: load the plan {path.stem}", lambda path=path: loaded(path))


def build_for_86(deployment: Path) -> str:
    """Parse and build the network's graph at a small size."""
    from sr_deploy.engine.tensorrt import engine_from_graph

    built = engine_from_graph("tensorrt-rtx", deployment / "model.onnx", ((48, 48),) * 3, ("8.6",))
    return f"{len(built.plan)} bytes in {built.seconds:.1f} s"


def validity(path: Path) -> str:
    """What ``Runtime.get_engine_validity`` says; without a driver it calls every plan invalid."""
    if not this_machine().gpus:
        raise StillOpen("no GPU")
    trt = import_flavour("tensorrt-rtx")
    verdict, diagnostics = trt.Runtime(logger_of("tensorrt-rtx")).get_engine_validity(path.read_bytes())
    return f"{verdict.name}, diagnostics {diagnostics}"


def loaded(path: Path) -> str:
    """Whether the plan loads on this machine."""
    from sr_deploy.engine.flavour import collected

    if not this_machine().gpus:
        raise StillOpen("no GPU")
    trt = import_flavour("tensorrt-rtx")
    with collected("tensorrt-rtx") as messages:
        engine = trt.Runtime(logger_of("tensorrt-rtx")).deserialize_cuda_engine(path.read_bytes())
    return "loads" if engine is not None else f"does not load: {messages.explain()}"
