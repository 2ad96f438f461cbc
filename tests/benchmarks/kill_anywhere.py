"""Commands that are killed anywhere: what was there still opens, and the same command again finishes without leftovers.

    python tests/benchmarks/kill_anywhere.py [--kills 100] [--faults 10] [--seed 0] [--only export,build]

Every command runs on a tiny network, in a process of its own, into an empty place and over what an earlier one made
(with ``--force`` where there is such an option). ``--kills`` of them, spread over commands and over their time, get a
signal at a random moment: SIGKILL, one in five SIGTERM or SIGHUP. ``--faults`` of each command die by SIGKILL exactly
before or after one of the calls that change names (rename, replace, exchange, unlink, rmdir, mkdir) or at an fsync.
``no-exchange`` is a file system that cannot swap two folders.

After the death, what was there before must open. Then the same command is given again; where it refuses because there
is unfinished work, with what its message tells (column "as told"). After that there must be exactly the files that an
undisturbed run leaves, those that are the same every time with the same bytes, and nothing of ours in the temporary
folder. Exit code 1 where that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

from sr_deploy import cli  # noqa: E402
from sr_deploy.bench.result import load_result  # noqa: E402
from sr_deploy.bundle.open import check_bundle  # noqa: E402
from sr_deploy.core import artifact  # noqa: E402
from sr_deploy.core.deployment.manifest import open_deployment  # noqa: E402
from sr_deploy.core.deployment.plan import open_plan  # noqa: E402
from sr_deploy.core.media.image import Picture, read_picture, write_picture  # noqa: E402
from sr_deploy.core.temporary import is_temporary  # noqa: E402
from sr_deploy.engine.manifest import open_engine  # noqa: E402
from sr_deploy.precision.calibrate.picture_set import open_set  # noqa: E402
from sr_deploy.precision.calibrate.ranges import open_ranges  # noqa: E402
from tests import synthetic_checkpoints  # noqa: E402
from tests.precision import small_plans  # noqa: E402

#: Calls that change names, by module; a fault is before or after one of them.
CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync")
#: Files whose bytes are the same after every undisturbed run.
SAME = ("model.onnx", "network.onnx", "weights.npz", "set.toml", "net.srd", ".png", ".safetensors")
FORCE = "--force"


@dataclass(frozen=True)
class Case:
    """A command: its name, what the box holds before, its words, and what replaces an earlier result (or nothing)."""

    name: str
    needs: Tuple[str, ...]
    words: Tuple[str, ...]
    over: Tuple[str, ...] = (FORCE,)
    exchange: bool = True


#: IN is the folder of the inputs, BOX the one that is written to.
CASES = (
    Case("export", (), ("export", "IN/net.pth", "-o", "BOX/out")),
    Case("export no-exchange", (), ("export", "IN/net.pth", "-o", "BOX/out"), exchange=False),
    Case("build", ("net",), ("build", "BOX/net", "--backend", "onnxruntime", "--size", "16,24,20x28")),
    Case(
        "build int8",
        ("net",),
        ("build", "BOX/net", "--backend", "onnxruntime", "--precision", "int8", "--images", "IN/photos", "--no-fit"),
        (FORCE, "--remake-plan"),
    ),
    Case("bench", ("net",), ("bench", "BOX/net", "--backend", "onnxruntime", "--size", "16,24", "--runs", "9"), ()),
    Case("sweep", ("net",), ("sweep", "BOX/matrix.toml", "-o", "BOX/swept"), ("--resume",)),
    Case(
        "calibrate",
        ("net",),
        # What is painted beside the photographs writes no file of its own, and takes most of the time.
        ("calibrate", "BOX/net", "--images", "IN/photos", "--content", "photo", "--write-manifest", "BOX/set.toml"),
    ),
    Case(
        "qat",
        ("planned",),
        ("qat", "BOX/planned", "--images", "IN/photos", "--steps", "12", "--batch", "2", "--patch", "16")
        + ("--device", "cpu"),
    ),
    Case(
        "qat no-exchange",
        ("planned",),
        ("qat", "BOX/planned", "--images", "IN/photos", "--steps", "12", "--batch", "2", "--patch", "16")
        + ("--device", "cpu"),
        exchange=False,
    ),
    Case(
        "compress",
        ("net",),
        ("compress", "BOX/net", "-o", "BOX/small", "--images", "IN/photos", "--macs", "0.6", "--steps", "12")
        + ("--batch", "2", "--patch", "16", "--device", "cpu"),
    ),
    Case(
        "distill",
        (),
        ("distill", "--arch", "SPAN", "--arch-arg", "width=4", "--teacher", "IN/net.pth", "--images", "IN/photos")
        + ("-o", "BOX/small.safetensors", "--steps", "12", "--judge-every", "4", "--batch", "2", "--patch", "16")
        + ("--loss", "l1=1,at=100,afd=1", "--ema", "0.9", "--device", "cpu"),
    ),
    Case(
        "density",
        (),
        ("density", "IN/net.pth", "--images", "IN/photos", "-o", "BOX/sparse.safetensors", "--steps", "12")
        + ("--judge-every", "4", "--batch", "2", "--patch", "16", "--device", "cpu"),
    ),
    Case("pack", ("net",), ("pack", "BOX/net", "-o", "BOX/net.srd", "--backend", "onnxruntime", "--size", "16,24")),
    Case("unpack", (), ("unpack", "IN/net.srd", "-o", "BOX/out", "--build")),
    Case("unpack no-exchange", (), ("unpack", "IN/net.srd", "-o", "BOX/out", "--build"), exchange=False),
    Case("run", ("net",), ("run", "BOX/net", "-i", "IN/photos", "-o", "BOX/up", "--backend", "onnxruntime")),
)


@dataclass
class Stage:
    """Where it plays: inputs, a box that is made anew for every trial, and a temporary folder of its own."""

    root: Path

    @property
    def box(self) -> Path:
        """What the command writes to."""
        return self.root / "box"

    @property
    def temporary(self) -> Path:
        """The system's temporary folder, as the commands see it."""
        return self.root / "tmp"

    def words(self, words: Tuple[str, ...]) -> List[str]:
        """The command line with its paths."""
        return [word.replace("BOX", str(self.box)).replace("IN/", f"{self.root}/in/") for word in words]

    def fill(self, source: Path) -> None:
        """Begin from a copy of a folder."""
        for folder in (self.box, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, self.box)
        self.temporary.mkdir()


def start(stage: Stage, words: Tuple[str, ...], case: Case, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a process that gives the command; its process id. What it says goes to ``said``."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        said = os.open(str(stage.root / "said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(stage.temporary)
        if not case.exchange:
            artifact.exchange = lambda first, second: False
        prepare()
        cli.main(stage.words(words))
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(process: int) -> int:
    """The exit code of a process, negative for the signal that killed it."""
    status = os.waitpid(process, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def dying_at(number: int, after: bool, counted: Optional[int] = None) -> Callable[[], None]:
    """What a child does first: die at the n-th call that changes a name; or tell at ``counted``, a pipe, of each."""
    seen = [0]

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            mine = seen[0]
            if counted is not None:
                os.write(counted, b".")
            if mine == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*args, **kwargs)
            finally:
                if mine == number and after:
                    os.kill(os.getpid(), signal.SIGKILL)

        return instead

    def patch() -> None:
        for name in CALLS:
            setattr(os, name, wrapped(getattr(os, name)))
        artifact.exchange = wrapped(artifact.exchange)

    return patch


def listed(folder: Path) -> Dict[str, str]:
    """Every file and empty folder under ``folder``; with its hash where that is the same every time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            same = name.endswith(SAME) and "results" not in name and "swept" not in name and "training" not in name
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if same else ""
        elif not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found


def open_all(box: Path, names: List[str]) -> None:
    """Open and verify each of these files of the box in the way of its kind; raises what that raises."""
    for name in names:
        path = box / name
        if path.parent.name == "engines" and path.suffix == ".onnx":
            open_engine(path)
        elif path.name == "manifest.json":
            open_deployment(path.parent)
        elif path.name == "plan.json":
            open_plan(path.parent)
        elif path.parent.name == "calibration":
            open_ranges(path)
        elif path.parent.name in ("results", "swept") and path.suffix == ".json":
            load_result(path)
        elif path.suffix == ".srd":
            check_bundle(path)
        elif path.name == "set.toml":
            open_set(path)
        elif path.parent.name == "up" and path.suffix != ".jsonl":  # the record names inodes
            read_picture(path)


def run_whole(stage: Stage, words: Tuple[str, ...], case: Case) -> int:
    """Give a command and wait for its end."""
    return end(start(stage, words, case))


def must(stage: Stage, words: Tuple[str, ...], case: Case) -> None:
    """Give a command that has to succeed."""
    if run_whole(stage, words, case):
        raise SystemExit(f"{' '.join(stage.words(words))} failed:\n{(stage.root / 'said').read_text()}")


def prepare(stage: Stage, chosen: List[Case]) -> None:
    """Inputs: a checkpoint, six photographs, a deployment, a matrix; where a case needs it, an INT8 plan, a bundle."""
    inputs, plain = stage.root / "in", CASES[0]
    (inputs / "photos").mkdir(parents=True)
    stage.temporary.mkdir()
    torch.save(synthetic_checkpoints.span_folded(8, 2, 0), inputs / "net.pth")
    for index, array in enumerate(small_plans.pictures(6, (48, 52))):
        pixels = np.rint(array[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        write_picture(Picture(np.ascontiguousarray(pixels)), inputs / "photos" / f"{index}.png")
    (inputs / "matrix.toml").write_text(
        'deployments = ["net"]\nsizes = [16, 24]\nbackends = ["onnxruntime"]\nthreads = [1]\nruns = 5\n'
    )
    must(stage, ("export", "IN/net.pth", "-o", "IN/net"), plain)
    if any("planned" in case.needs for case in chosen):
        shutil.copytree(inputs / "net", inputs / "planned")
        planned = ("--precision", "int8", "--images", "IN/photos", "--no-fit", "--backend", "onnxruntime")
        must(stage, ("build", "IN/planned", *planned), plain)
    if any("IN/net.srd" in case.words for case in chosen):
        must(stage, ("pack", "IN/net", "-o", "IN/net.srd", "--backend", "onnxruntime", "--size", "16,24"), plain)


@dataclass(frozen=True)
class Trial:
    """A case, into an empty place or over an earlier result: words, the box before, the files after, seconds, calls."""

    case: Case
    label: str
    words: Tuple[str, ...]
    before: Path
    standing: List[str]
    expected: Dict[str, str]
    seconds: float
    calls: int


def trials_of(stage: Stage, case: Case) -> List[Trial]:
    """The case into an empty place and over an earlier result, each run once undisturbed."""
    made = []
    before = stage.root / "before" / case.name
    before.mkdir(parents=True)
    for name in case.needs:
        shutil.copytree(stage.root / "in" / name, before / name)
    if case.name == "sweep":
        shutil.copy(stage.root / "in" / "matrix.toml", before)
    standing: List[str] = []
    for label, words in (("new", case.words), ("over", case.words + case.over)):
        if standing:
            before = stage.root / "before" / f"{case.name} over"
            shutil.copytree(stage.box, before)
        stage.fill(before)
        readable, counted = os.pipe()
        began = time.monotonic()
        code = end(start(stage, words, case, dying_at(0, False, counted)))
        seconds = time.monotonic() - began
        os.close(counted)
        with open(readable, "rb") as stream:
            calls = len(stream.read())
        if code:
            raise SystemExit(f"{case.name} ({label}) failed: {code}\n{(stage.root / 'said').read_text()}")
        expected = listed(stage.box)
        open_all(stage.box, list(expected))
        made.append(Trial(case, label, words, before, list(standing), expected, seconds, calls))
        standing = list(expected)
    return made


def judge(stage: Stage, trial: Trial, death: Callable[[int], None], first: Callable[[], None]) -> List[str]:
    """Let one command die, look at what is left, give it again, and look once more; what was found."""
    stage.fill(trial.before)
    process = start(stage, trial.words, trial.case, first)
    death(process)
    code = end(process)
    found = ["killed" if code < 0 or code > 128 else "ended before"]
    time.sleep(0.1 if trial.case.name == "sweep" else 0.0)  # its own process dies with it, a moment later
    try:
        open_all(stage.box, trial.standing)
    except Exception as error:
        found.append(f"BROKEN what was there: {' '.join(str(error).split())[:160]}")
    if not code < 0 and (stage.root / "said").read_text().find("Traceback") >= 0:
        found.append(f"BROKEN traceback {(stage.root / 'said').read_text()[-300:]}")
    code = run_whole(stage, trial.words, trial.case)
    now = listed(stage.box)
    if code and now != trial.expected:
        said = (stage.root / "said").read_text()
        option = "--resume" if "--resume" in said else FORCE
        found.append(f"as told {option}")
        code = run_whole(stage, tuple(word for word in trial.words if word != FORCE) + (option,), trial.case)
        now = listed(stage.box)
    if code not in (0, 2) or now != trial.expected:
        differing = sorted(set(now.items()) ^ set(trial.expected.items()))[:4]
        found.append(f"BROKEN after the rerun ({code}): {differing} {(stage.root / 'said').read_text()[-300:]}")
    left = [path.name for path in stage.temporary.iterdir() if is_temporary(path.name)]
    if code == 0 and left:
        found.append(f"BROKEN leftovers {left}")
    try:
        open_all(stage.box, list(trial.expected))
    except Exception as error:
        found.append(f"BROKEN does not open: {' '.join(str(error).split())[:160]}")
    return found


def at_random(stage: Stage, trial: Trial, dice: random.Random) -> Tuple[str, List[str]]:
    """A signal at a random moment."""
    kind = dice.choice([signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGHUP])
    moment = dice.uniform(0, 1.05 * trial.seconds)

    def death(process: int) -> None:
        time.sleep(moment)
        os.kill(process, kind)

    return f"{kind.name} after {moment:.2f} s", judge(stage, trial, death, lambda: None)


def at_call(stage: Stage, trial: Trial, number: int, after: bool) -> Tuple[str, List[str]]:
    """SIGKILL at a call that changes a name."""
    where = f"{'after' if after else 'before'} call {number} of {trial.calls}"
    return where, judge(stage, trial, lambda process: None, dying_at(number, after))


def faults_of(trial: Trial, most: int, dice: random.Random) -> List[Tuple[int, bool]]:
    """So many of the places where it can die."""
    places = [(number, after) for number in range(1, trial.calls + 1) for after in (False, True)]
    return sorted(dice.sample(places, min(most, len(places))))


def import_all() -> None:
    """What the commands import on their way, so that no child need do it."""
    import matplotlib.pyplot  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch.onnx  # noqa: F401

    import sr_deploy

    for folder in ("core", "checkpoint", "fold", "graph", "precision", "engine", "run", "bench", "report", "pipeline"):
        for path in sorted((Path(sr_deploy.__file__).parent / folder).rglob("*.py")):
            words = path.relative_to(Path(sr_deploy.__file__).parents[1]).with_suffix("").parts
            with contextlib.suppress(ImportError):
                importlib.import_module(".".join(words).replace(".__init__", ""))


def main() -> int:
    """Kill, look, print the table."""
    parser = argparse.ArgumentParser(description="Commands that are killed anywhere.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--faults", type=int, default=10, help="of each command, into an empty place and over one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of commands, by commas")
    options = parser.parse_args()
    chosen = [case for case in CASES if not options.only or case.name in options.only.split(",")]
    dice, broken = random.Random(options.seed), 0
    rows: Dict[Tuple[str, str], Counter] = {}
    import_all()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        prepare(stage, chosen)
        trials = [trial for case in chosen for trial in trials_of(stage, case)]
        doings: List[Tuple[Trial, Callable[[], Tuple[str, List[str]]]]] = []
        for number in range(options.kills):
            trial = trials[number % len(trials)]
            doings.append((trial, lambda trial=trial: at_random(stage, trial, dice)))
        for trial in trials:
            for place in faults_of(trial, options.faults, dice):
                doings.append((trial, lambda trial=trial, place=place: at_call(stage, trial, *place)))
        for number, (trial, act) in enumerate(doings, 1):
            where, found = act()
            print(f"\r{number} of {len(doings)} ", end="", file=sys.stderr, flush=True)
            row = rows.setdefault((trial.case.name, trial.label), Counter())
            row.update(["deaths", *(text.split(" ")[0] for text in found)])
            for text in found:
                if text.startswith("BROKEN"):
                    broken += 1
                    print(f"{trial.case.name} ({trial.label}), {where}: {text}", flush=True)
    print(f"{'command':<22}{'place':<7}{'trials':>7}{'died':>7}{'as told':>9}{'broken':>8}")
    for (name, label), row in rows.items():
        print(f"{name:<22}{label:<7}{row['deaths']:>7}{row['killed']:>7}{row['as']:>9}{row['BROKEN']:>8}")
    total = sum(rows.values(), Counter())
    print(f"{'all':<29}{total['deaths']:>7}{total['killed']:>7}{total['as']:>9}{total['BROKEN']:>8}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
