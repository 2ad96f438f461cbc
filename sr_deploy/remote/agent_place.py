"""What the agent on the board stands on: places that nobody else can change, the lock, whole files, hashes.

Sent to the board before agent.py; the rules of that file hold here too: Python 3.7, standard library, no srdeploy.

A board may be shared. What two people share of a working folder is its ``lock`` alone; everything else lies in a
folder of each user's own, which no other member of the group can enter. So nothing that another put there is read,
linked or run.
"""

import contextlib
import fcntl
import glob
import grp
import json
import os
import pwd
import re
import shlex
import shutil
import stat

#: Where the command is looked for after PATH; a session without a terminal often has a bare PATH.
PLACES = ("/opt/srdeploy/bin", "/usr/local/bin", "~/.local/bin", "{shared}/venv/bin")


class Unsafe(Exception):
    """Others could change what this user is about to trust; the text says where."""


def folders_of(request):
    """The working folder that all share, and in it this user's own, both absolute and safe; made where missing."""
    os.umask(0o077)
    shared = os.path.abspath(os.path.expanduser(request["workdir"]))
    os.makedirs(shared, exist_ok=True)
    own = os.path.join(shared, f"uid-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(own, 0o700)
    why = changeable(own)
    if why:
        raise Unsafe(why)
    for name in ("store", "deployments", "jobs"):
        os.makedirs(os.path.join(own, name), exist_ok=True)
    return shared, own


def own_folder(request):
    """This user's folder alone."""
    return folders_of(request)[1]


def changeable(path):
    """Why somebody other than root and this user could change what is found at ``path``; "" where nobody can.

    Every folder on the way counts, of the path as written and of the one that links on it lead to. A folder with the
    sticky bit (such as /tmp) may be written by others: they cannot rename or remove there what is not theirs.
    """
    for whole in (os.path.abspath(path), os.path.realpath(path)):
        place = whole
        while True:
            why = _changeable_here(place)
            if why:
                return why
            if os.path.dirname(place) == place:
                break
            place = os.path.dirname(place)
    return ""


def _changeable_here(place):
    found = os.lstat(place)
    if found.st_uid not in (0, os.getuid()):
        return f"{place} belongs to {_user_name(found.st_uid)}"
    # The mode of a link says nothing; a sticky folder keeps what is in it to its owners.
    if stat.S_ISLNK(found.st_mode) or (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return ""
    if found.st_mode & stat.S_IWOTH:
        return f"{place} can be written by everybody"
    if found.st_mode & stat.S_IWGRP and not _alone_in(found.st_gid):
        return f"{place} can be written by its group"
    return ""


def _alone_in(group):
    """Whether the group has no member but root and this user, as the private group that Ubuntu makes for each user."""
    members = {user.pw_name for user in pwd.getpwall() if user.pw_gid == group}
    with contextlib.suppress(KeyError):
        members |= set(grp.getgrgid(group).gr_mem)
    return members <= {"root", _user_name(os.getuid())}


def _user_name(number):
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def command_of(shared, command):
    """The command for srdeploy with its program's full path (None where there is none), and what was skipped and why.

    A program counts only where neither it, nor its interpreter, nor the packages beside them can be changed by others.
    """
    words, skipped = shlex.split(command), []
    name = os.path.expanduser(words[0])
    places = os.environ.get("PATH", "").split(os.pathsep) + [
        os.path.expanduser(place.format(shared=shared)) for place in PLACES
    ]
    found = [name] if os.path.dirname(name) else [os.path.join(place, name) for place in places if os.path.isabs(place)]
    for program in dict.fromkeys(map(os.path.abspath, found)):
        if shutil.which(program):
            why = next(filter(None, map(changeable, [program, *_runs_on(program)])), "")
            if not why:
                return [program] + words[1:], skipped
            skipped.append(f"{program}: {why}")
    return None, skipped


def _runs_on(program):
    """What else decides what a program does: the interpreter of its first line, and the packages beside both."""
    with open(program, "rb") as stream:
        first = stream.readline(4096)
    words = os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []
    found = [word for word in words[:1] if os.path.exists(word)]
    for place in [program, *found]:
        packages = os.path.join(os.path.dirname(os.path.dirname(place)), "lib", "python*", "*-packages")
        found += glob.glob(packages) + glob.glob(os.path.join(packages, "sr_deploy"))
    return found


def environment_of(command):
    """The environment of a job: unbuffered UTF-8, wide tables, and the board's tools in PATH."""
    more = [os.path.dirname(command[0]), "/usr/local/bin", "/usr/sbin", "/usr/local/cuda/bin"]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath)] + [place for place in more if place])
    return dict(os.environ, PATH=path, PYTHONUNBUFFERED="1", PYTHONUTF8="1", COLUMNS="120")


def open_lock(shared, make=False):
    """The descriptor of the board's lock; None where there is none and ``make`` is false.

    Whoever may write the folder may have put something else in its place: a link or a second name of one of this
    user's files (which would be overwritten), a pipe (which would wait for ever).
    """
    path, flags = os.path.join(shared, "lock"), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if os.path.islink(path):
        raise Unsafe(f"{path} is a link")
    try:
        lock = os.open(path, flags)
    except FileNotFoundError:
        if not make:
            return None
        try:
            # Not O_CREAT alone: in a sticky folder Linux refuses it for a file of another user.
            lock = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            if os.stat(shared).st_mode & stat.S_IWGRP:
                os.fchmod(lock, 0o660)
        except FileExistsError:
            lock = os.open(path, flags)
    found = os.fstat(lock)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(lock)
        raise Unsafe(f"{path} is no file of its own")
    return lock


def holder_of(shared, own):
    """What the holder of the board's lock wrote of itself, as texts; None where the lock is free."""
    lock = open_lock(shared)
    if lock is None:
        return None
    try:
        if taken(lock):
            return None
        try:
            told = json.loads(os.pread(lock, 1 << 12, 0).decode())
            told = told if isinstance(told, dict) else {}
        except (ValueError, RecursionError):
            told = {}
    finally:
        os.close(lock)
    texts = {key: str(told.get(key, ""))[:200] for key in ("holder", "since", "command", "job")}
    pid = told.get("pid")
    pid = pid if isinstance(pid, int) and 0 < pid < 1 << 31 else 0
    return dict(texts, pid=pid, mine=known_id(texts["job"]) and os.path.isdir(os.path.join(own, "jobs", texts["job"])))


def known_id(name):
    """Whether a text has the form of a job's id."""
    return len(name) <= 100 and bool(re.fullmatch("[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?", name))


def taken(lock):
    """Take the lock without waiting; False where another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
