"""Linux boards over ssh: the system's own program, with the user's configuration, keys, agent and jump hosts.

Files go through the same shell as scripts do, over one stdin or stdout: that needs no sftp server on the board, takes
any file name, and tells an interrupted transfer from a complete one. Nothing is ever asked for: a host whose key is not
known, or has changed, is refused.
"""

from __future__ import annotations

import re

from edgeprune.children import Ended
from edgeprune.device_shell import LINE, DeviceShell, Program
from edgeprune.errors import DeviceError, EdgepruneError, UsageError

FORM = "ssh://user@host[:port]"
# Names that hold nothing which ssh, its configuration or a shell could take for something else.
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?/?"
)
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ConnectionAttempts": "1",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
}
# What ssh says, what it means, and the next step; the first that is found counts.
_FAULTS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {name} has changed: it is another machine, or one between you and it",
        "if the board was set up anew: ssh-keygen -R {where}, then compare its new key and log in once by hand",
    ),
    (
        "Host key verification failed",
        "the host key of {name} is not known here",
        "log in once by hand and compare the fingerprint that ssh shows: ssh {by_hand}",
    ),
    (
        "Permission denied",
        "{name} refused the log-in",
        "keys only, nothing is asked for: ssh-copy-id {by_hand}",
    ),
    ("Too many authentication failures", "{name} refused the log-in", "offer one key: IdentitiesOnly in ~/.ssh/config"),
    ("Could not resolve hostname", "there is no host of the name in {name}", "check the name, or give the IP address"),
    ("Connection refused", "nothing listens for ssh at {name}", "is sshd on, and the port right?"),
    ("No route to host", "there is no route to {name}", "is it on, and in this network?"),
    ("Network is unreachable", "there is no route to {name}", "is it on, and in this network?"),
    ("timed out", "{name} does not answer", "is it on, and in this network?"),
    ("closed by remote host", "{name} closed the connection", "try by hand: ssh {by_hand}"),
    ("Connection closed", "{name} closed the connection", "try by hand: ssh {by_hand}"),
    ("Connection reset", "{name} closed the connection", "try by hand: ssh {by_hand}"),
)


def connect(address: str, python: str | None = None) -> DeviceShell:
    """The link to `ssh://user@host:port`; user and port may be left to the user's configuration of ssh.

    Raises:
        UsageError: It is no such address.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"] or 22) > 65535:
        raise UsageError(
            f"cannot read the address {address!r}",
            where="--device",
            hint=f"write it as {FORM}; names are of letters, digits, dots, underscores and hyphens",
        )
    user, host, port = found["user"], found["host"].strip("[]").lower(), found["port"]
    command = ["ssh", "-T", *(part for key, value in _OPTIONS.items() for part in ("-o", f"{key}={value}"))]
    command += ["-l", user] if user else []
    command += ["-p", port] if port else []
    by_hand = " ".join([*(["-p", port] if port else []), f"{user}@{host}" if user else host])
    name = f"ssh://{user + '@' if user else ''}{found['host'].lower()}{':' + port if port else ''}"
    where = f"'[{host}]:{port}'" if port and port != "22" else host

    def fault(ended: Ended) -> EdgepruneError:
        said = ended.stderr.decode(errors="replace")
        names = {"name": name, "by_hand": by_hand, "where": where}
        for text, message, hint in _FAULTS:
            if text in said:
                return DeviceError(message.format(**names), where=name, hint=hint.format(**names))
        return DeviceError(
            f"no shell answered at {name}: {ended.last_line} (status {ended.status})",
            where=name,
            hint=f"try by hand: ssh {by_hand} sh -c true",
        )

    return DeviceShell(name, Program((*command, "--", host, LINE), "openssh-client", fault), python or "python3")
