"""A connection to a board: keys and known hosts as OpenSSH keeps them, never a key that is not known.

paramiko does the protocol. What it leaves to its caller is here: ~/.ssh/config, the files of known hosts, revoked
keys, and one plain message for each way a connection fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

from sr_deploy.core.errors import EnvironmentFault, MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.remote.inventory import Board

#: Seconds for the network to answer, at connecting and later for any one answer of the file transfer.
CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 30.0
#: A packet so often keeps routers from forgetting the connection and finds a dead peer.
KEEPALIVE_SECONDS = 15


class Unreachable(EnvironmentFault):
    """The board does not answer (now): name, network, port, or no SSH there. Worth trying again later."""


class Dropped(Exception):
    """The connection has ended in the middle of something; the board may be well."""


@dataclass
class Link:
    """An open connection.

    Attributes:
        board: to which.
        client: paramiko's SSHClient.
        sftp: its SFTPClient.
    """

    board: Board
    client: Any
    sftp: Any

    def alive(self) -> bool:
        """Whether the transport believes in its peer."""
        transport = self.client.get_transport()
        return transport is not None and transport.is_active()


@contextlib.contextmanager
def connected(board: Board) -> Iterator[Link]:
    """Connect, and turn a connection that ends inside the block into ``Dropped``.

    Raises:
        Unreachable: nobody answers.
        EnvironmentFault: the host key is unknown, another or revoked; no key of ours is taken; no SFTP.
        Dropped: it ended inside the block.
    """
    paramiko = _paramiko()
    client = _open(board)
    try:
        with drops(lambda: _transport_ended(client)):
            try:
                sftp = client.open_sftp()
            except paramiko.SSHException as error:
                if _transport_ended(client):
                    raise
                raise EnvironmentFault(
                    f"{board.name} has no SFTP: {error}",
                    "the subsystem sftp, as OpenSSH has it by default",
                    "the line 'Subsystem sftp internal-sftp' in the board's /etc/ssh/sshd_config",
                ) from error
            sftp.get_channel().settimeout(ANSWER_SECONDS)
            yield Link(board, client, sftp)
    finally:
        client.close()


@contextlib.contextmanager
def drops(ended: Callable[[], bool]) -> Iterator[None]:
    """Turn what a lost connection raises into ``Dropped``; an error of one file stays what it is."""
    paramiko = _paramiko()
    try:
        yield
    except (EOFError, ConnectionError, socket.timeout, paramiko.SSHException) as error:
        raise Dropped(str(error) or type(error).__name__) from error
    except OSError as error:
        # A closed channel raises OSError("Socket is closed"), a file error of SFTP is an OSError too.
        if ended() or "Socket is closed" in str(error):
            raise Dropped(str(error)) from error
        raise


def _transport_ended(client: Any) -> bool:
    """Whether the connection is gone; its thread needs a moment to notice."""
    for _ in range(10):
        transport = client.get_transport()
        if transport is None or not transport.is_active():
            return True
        time.sleep(0.02)
    return False


def _open(board: Board) -> Any:
    """An authenticated SSHClient."""
    paramiko = _paramiko()
    config = _config_of(board)
    host = config.get("hostname", board.host)
    port = board.port or int(config.get("port", 22))
    user = board.user or config.get("user") or _user()
    keys = [os.path.expanduser(board.key)] if board.key else config.get("identityfile", [])
    where = f"{user}@{host}:{port}"
    if board.key and not os.path.isfile(keys[0]):
        raise EnvironmentFault(f"there is no key {keys[0]}", "a private key's file", "ssh-keygen -t ed25519")
    only = bool(board.key) or config.get("identitiesonly", "no") == "yes"
    client = paramiko.SSHClient()
    revoked = _load_known_hosts(client, config)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    step = f"ssh {'' if port == 22 else f'-p {port} '}{user}@{host}"
    scan = f"ssh-keyscan {'' if port == 22 else f'-p {port} '}{host} >> ~/.ssh/known_hosts"
    try:
        client.connect(
            host,
            port,
            user,
            key_filename=[key for key in keys if os.path.isfile(key)] or None,
            allow_agent=not only,
            look_for_keys=not only,
            timeout=CONNECT_SECONDS,
            banner_timeout=CONNECT_SECONDS,
            auth_timeout=CONNECT_SECONDS,
            sock=_proxy(config, host, port, user),
        )
    except paramiko.BadHostKeyException as error:
        client.close()
        raise EnvironmentFault(
            f"the host key of {where} has CHANGED: it shows {_fingerprint(error.key)}, "
            f"known_hosts has {_fingerprint(error.expected_key)}",
            "the key that known_hosts has; someone may be listening in",
            f"only if the board was set up anew: ssh-keygen -R '{_known_name(host, port)}', then {step}",
        ) from error
    except paramiko.PasswordRequiredException as error:
        client.close()
        raise EnvironmentFault(
            f"the key for {where} has a passphrase", "a key in the agent", "ssh-add " + " ".join(keys)
        ) from error
    except paramiko.AuthenticationException as error:
        client.close()
        raise _no_key(where, keys, step) from error
    except paramiko.SSHException as error:
        client.close()
        if "No authentication methods available" in str(error):
            raise _no_key(where, keys, step) from error
        if "not found in known_hosts" in str(error):
            reason = ", or is one that it marks as revoked" if revoked else ""
            raise EnvironmentFault(
                f"the host key of {where} is not in known_hosts{reason}",
                "its line in ~/.ssh/known_hosts",
                f"{step} once and compare the fingerprint with the board's own; in a lab: {scan}",
            ) from error
        raise Unreachable(
            f"no SSH at {where}: {error}", "a running sshd", f"{step} -v shows how far it comes"
        ) from error
    except socket.gaierror as error:
        raise Unreachable(f"the name {host} is not known: {error.strerror}", "a host name or address", step) from error
    except (socket.timeout, TimeoutError) as error:
        raise Unreachable(
            f"{where} does not answer within {CONNECT_SECONDS:.0f} s",
            "a board that is on, in this network",
            f"ping {host}",
        ) from error
    except OSError as error:
        refused = isinstance(error, (ConnectionRefusedError, paramiko.ssh_exception.NoValidConnectionsError))
        text = "refuses the connection: nothing listens there" if refused else f"cannot be reached: {error}"
        raise Unreachable(f"{where} {text}", "a running sshd on that port", f"{step} -v") from error
    client.get_transport().set_keepalive(KEEPALIVE_SECONDS)
    return client


def _no_key(where: str, keys: List[str], step: str) -> EnvironmentFault:
    tried = ", ".join(key for key in keys if os.path.isfile(key)) or "the agent's and those in ~/.ssh, if any"
    return EnvironmentFault(
        f"{where} takes none of your keys ({tried})",
        "a key in its ~/.ssh/authorized_keys; passwords are not asked for",
        f"{step.replace('ssh ', 'ssh-copy-id ', 1)}, or another --key",
    )


def _config_of(board: Board) -> Dict[str, Any]:
    """What ~/.ssh/config says of the host."""
    path = Path.home() / ".ssh" / "config"
    paramiko = _paramiko()
    if not path.is_file():
        return {}
    try:
        return dict(paramiko.SSHConfig.from_path(str(path)).lookup(board.host))
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize) as error:
        raise EnvironmentFault(
            f"{path} cannot be read: {error}",
            "a file that ssh takes",
            "mend that line; ssh BOARD says whether it is understood",
        ) from error


def _load_known_hosts(client: Any, config: Dict[str, Any]) -> bool:
    """Load OpenSSH's files of known hosts, without revoked keys; whether any key is marked as revoked.

    paramiko fails on lines that begin with a marker or hold no key, and knows nothing of revoked keys. So it is given
    the plain lines only: what is left out here is unknown, and unknown is refused.
    """
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

    named = shlex.split(config.get("userknownhostsfile", "")) or [str(Path.home() / ".ssh" / "known_hosts")]
    named += shlex.split(config.get("globalknownhostsfile", "")) or ["/etc/ssh/ssh_known_hosts"]
    lines: List[str] = []
    for path in map(Path, map(os.path.expanduser, named)):
        if path.is_file():
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    revoked = {line.split()[3] for line in lines if line.startswith("@revoked") and len(line.split()) > 3}
    plain = []
    for line in map(str.strip, lines):
        with contextlib.suppress(InvalidHostKey, _paramiko().SSHException):
            if line and line[0] not in "#@" and HostKeyEntry.from_line(line) and line.split()[2] not in revoked:
                plain.append(line)
    with tempfile.NamedTemporaryFile("w", suffix=".known_hosts", encoding="utf-8") as stream:
        stream.write("".join(line + "\n" for line in plain))
        stream.flush()
        client.load_system_host_keys(stream.name)
    return bool(revoked)


def _proxy(config: Dict[str, Any], host: str, port: int, user: str) -> Any:
    """The way through another machine: ProxyCommand as it is, ProxyJump by OpenSSH's own client."""
    command = config.get("proxycommand")
    if command is None and config.get("proxyjump", "none") != "none":
        hops = config["proxyjump"].split(",")
        before = ["-J", ",".join(hops[:-1])] if hops[1:] else []
        command = shlex.join(["ssh", *before, "-W", f"{host}:{port}", hops[-1]])
    return _paramiko().ProxyCommand(command) if command and command != "none" else None


def _known_name(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def _fingerprint(key: Any) -> str:
    """As ssh-keygen -l prints it."""
    return f"{key.get_name()} {key.fingerprint}" if hasattr(key, "fingerprint") else key.get_name()


def _user() -> str:
    import getpass

    return getpass.getuser()


def _paramiko() -> Any:
    """The library, imported late: its start takes longer than most commands."""
    try:
        import paramiko
    except ImportError as error:
        raise MissingPackage(
            f"the package paramiko does not import: {error}", "an SSH library", pip_install("remote")
        ) from error
    # Its errors reach the user through ours; without a handler Python would print them and their tracebacks too.
    if not logging.getLogger("paramiko").handlers:
        logging.getLogger("paramiko").addHandler(logging.NullHandler())
    return paramiko
