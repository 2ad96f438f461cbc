"""The engines of a deployment, as one command sees them: listed, read and hashed once each."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple, TypeVar, Union

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import BadInput
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.engine.fits import HostFacts, check_engine, host_facts
from sr_deploy.engine.manifest import (
    EngineManifest,
    WrittenManifest,
    check_not_refused,
    manifest_path,
    proved_manifest,
    read_manifest,
)
from sr_deploy.engine.runtimes import suffixes

Value = TypeVar("Value")
#: What was found, or the error that was raised: it is raised again, not found out again.
Answers = Dict[Path, Union[Value, BadInput]]


class EngineIndex:
    """The engines of one deployment. It lives as long as a command: what is built later is not in it.

    A manifest is read when an engine is first asked for, and its file hashed when it is first to be used: choosing
    among many engines reads no more of them than their manifests, and none is used unproved.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._paths: Optional[Tuple[Path, ...]] = None
        self._written: Answers[WrittenManifest] = {}
        self._proved: Answers[EngineManifest] = {}
        self._facts: Dict[str, HostFacts] = {}

    @property
    def paths(self) -> Tuple[Path, ...]:
        """The engines in the deployment: files beside which a manifest of the same stem lies."""
        if self._paths is None:
            folder = self.deployment.engines_folder
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            self._paths = tuple(p for p in files if p.suffix in suffixes() and manifest_path(p).is_file())
        return self._paths

    def stated(self, path: Path) -> EngineManifest:
        """What an engine's manifest says of it, to choose by; whether it is true, ``proved`` tells.

        Raises:
            BadDeployment: see ``read_manifest``; and see ``proved``, where the file holds two manifests and only the
                engine's hash tells which.
        """
        written = _once(self._written, path, read_manifest)
        return written if written.replaces is None else self.proved(path, refused_too=True)

    def proved(self, path: Path, refused_too: bool = False) -> EngineManifest:
        """The manifest of an engine that is what it says, see ``open_engine``; ask before each use of its file.

        Raises:
            BadDeployment: see ``open_engine``.
        """
        written = _once(self._written, path, read_manifest)
        manifest = _once(self._proved, path, lambda engine: proved_manifest(engine, written))
        if not refused_too:
            check_not_refused(path, manifest)
        return manifest

    @property
    def precisions(self) -> Tuple[str, ...]:
        """What the engines say that they compute in, widest first; a damaged one says nothing."""
        told = set()
        for path in self.paths:
            with contextlib.suppress(BadInput):
                told.add(self.stated(path).precision)
        return tuple(name for name in ENGINE_PRECISIONS if name in told)

    def check_fits(self, manifest: EngineManifest) -> None:
        """Refuse an engine that was built for something else than this deployment on this machine.

        Raises:
            ForeignEngine: see ``check_engine``.
        """
        graphs = tuple(graph.sha256 for graph in self.deployment.manifest.graphs)
        folder, ends = str(self.deployment.folder), self.deployment.ends
        check_engine(manifest, self.facts(manifest.backend), graphs, folder, ends)

    def facts(self, backend: str) -> HostFacts:
        """What this machine has for a backend; looked at once."""
        if backend not in self._facts:
            self._facts[backend] = host_facts(backend)
        return self._facts[backend]


def _once(answers: Answers[Value], path: Path, find: Callable[[Path], Value]) -> Value:
    """The answer for a path, found the first time; an error is an answer too."""
    path = Path(path)
    if path not in answers:
        try:
            answers[path] = find(path)
        except BadInput as error:
            answers[path] = error
    answer = answers[path]
    if isinstance(answer, BadInput):
        raise answer
    return answer
