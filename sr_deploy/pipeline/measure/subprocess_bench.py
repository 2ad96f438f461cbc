"""A measurement in a process of its own: fresh memory, fresh caches, and nothing lost when it dies.

    python -m sr_deploy.pipeline.measure.subprocess_bench REQUEST.json PARENT

is what ``bench_in_fresh_process`` starts; nobody else needs it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import sr_deploy
from sr_deploy.bench.result import Result, load_result
from sr_deploy.core import errors
from sr_deploy.core.signals import ended_by_signals
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment

#: prctl(2): the signal that this process gets when its parent ends.
_PR_SET_PDEATHSIG = 1
_PATHS = ("deployment", "json_file", "result_file")


def bench_in_fresh_process(request: BenchRequest, say: Callable[[str], None] = lambda _: None) -> Result:
    """``bench_deployment`` in a new interpreter; its progress goes to stderr.

    Args:
        request: with ``result_file``.
        say: told which process it is.

    Raises:
        SrDeployError: what it raised there, as the same class.
        EnvironmentFault: it was killed; the points before that are in the result file.
    """
    assert request.result_file is not None, "a fresh process hands its result over in a file"
    with temporary_folder() as folder:
        asked, failed = folder / "request.json", folder / "error.json"
        asked.write_text(json.dumps(request_to_dict(request)), encoding="utf-8")
        package = str(Path(sr_deploy.__file__).resolve().parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-m", "sr_deploy.pipeline.measure.subprocess_bench", str(asked), str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
        )
        say(f"process {process.pid}")
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code == 0:
            return load_result(request.result_file)
        if failed.is_file():
            raise _error_from(json.loads(failed.read_text(encoding="utf-8")))
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise errors.EnvironmentFault(
        f"the process that measured {request.deployment} {how}",
        "a process that lives until the end",
        f"what was complete is in {request.result_file}; go on with --resume (a SIGKILL often means too little memory)",
    )


def request_to_dict(request: BenchRequest) -> Dict[str, Any]:
    """The JSON form of a request, with absolute paths."""
    raw = dataclasses.asdict(request)
    for name in _PATHS:
        raw[name] = None if raw[name] is None else os.path.abspath(str(raw[name]))
    return raw


def request_from_dict(raw: Dict[str, Any]) -> BenchRequest:
    """The request of ``request_to_dict``."""
    paths = {name: None if raw[name] is None else Path(raw[name]) for name in _PATHS}
    return BenchRequest(**{**raw, **paths, "sizes": tuple((size[0], size[1]) for size in raw["sizes"])})


def main(arguments: List[str]) -> int:
    """The new process: measure; the exit code."""
    _end_with_parent(int(arguments[1]))
    asked = Path(arguments[0])
    try:
        with ended_by_signals():
            raw = json.loads(asked.read_text(encoding="utf-8"))
            bench_deployment(request_from_dict(raw), lambda text: print(text, file=sys.stderr))
    except errors.SrDeployError as error:
        said = {"class": type(error).__name__, "found": error.found, "wanted": error.wanted, "todo": error.todo}
        asked.with_name("error.json").write_text(json.dumps(said), encoding="utf-8")
        return error.exit_code
    return 0


def _end_with_parent(parent: int) -> None:
    """Not to measure on, unseen, when the parent was killed: the next sweep would be disturbed by it.

    Args:
        parent: its process id, as it told it; it may be dead before this process had looked.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        # No Linux: then it runs to its end.
        return
    if os.getppid() != parent:
        sys.exit(1)


def _error_from(said: Dict[str, str]) -> errors.SrDeployError:
    kind = getattr(errors, said["class"], errors.SrDeployError)
    return kind(said["found"], said["wanted"], said["todo"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
