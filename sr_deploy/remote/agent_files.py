"""Files on the board: the store's, a deployment's, what a job made. Sent before agent.py; its rules hold here too."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import urllib.parse


def assemble(root, name, files):
    """The deployment's folder, made of links into the store; one that is there keeps its engines and results."""
    folder = os.path.join(root, name)
    for path, sha in files.items():
        place = os.path.join(folder, path)
        stored = os.path.join(root, "store", sha)
        if not (os.path.isfile(place) and (os.path.samefile(place, stored) or sha256_of(place) == sha)):
            link(root, sha, place)
    return folder


def link(root, sha, place):
    """Put a stored file at ``place``, whole or not at all; a copy where the file system has no hard links."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    temporary = os.path.join(os.path.dirname(place), ".new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(os.path.join(root, "store", sha), temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EXDEV):
            raise
        shutil.copyfile(os.path.join(root, "store", sha), temporary)
    os.replace(temporary, place)


def walk(folder):
    """All files below a folder but hidden ones, links and pipes."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not name.startswith(".") and os.path.isfile(path) and not os.path.islink(path):
                yield path


def snapshot(deployment):
    """Modification times of engines and results, so that afterwards those of this job are known."""
    return {
        path: os.stat(path).st_mtime_ns
        for part in ("engines", "results")
        for path in walk(os.path.join(deployment, part))
    }


def made(folder, deployment, before):
    """What goes home: manifests of new engines, new results, pictures, the log and the output."""
    found = []
    for path, changed in snapshot(deployment).items():
        home = os.path.relpath(path, deployment)
        if before.get(path) != changed and (home.startswith("results") or path.endswith(".json")):
            found.append((path, home))
    out = os.path.join(folder, "out")
    found += [(path, os.path.join("pictures", os.path.relpath(path, out))) for path in walk(out)]
    found += [
        (os.path.join(folder, name), os.path.join("jobs", os.path.basename(folder), name)) for name in ("log", "output")
    ]
    return [
        {"path": quoted(path), "to": quoted(home), "size": os.path.getsize(path), "sha256": sha256_of(path)}
        for path, home in sorted(found)
    ]


def part_of(root, sha, client):
    """Where a client's incomplete upload lies."""
    return os.path.join(root, "store", f".{sha}.{client}.part")


def quoted(path):
    """A path as ASCII, whatever bytes its name has: they are written as in a URL."""
    return urllib.parse.quote(os.fsencode(path))


def free_bytes(folder):
    """What this user may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def sha256_of(path):
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write(path, text):
    """Write a text file whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def load(path):
    """A JSON file, or None where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def now():
    """This moment in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
