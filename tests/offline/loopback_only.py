"""Refuses every connection and every look-up beyond this machine, from the moment it is imported.

`conftest.py` imports it, and puts this folder on PYTHONPATH, where `sitecustomize.py` imports it into every Python
process that a test starts.
"""

from __future__ import annotations

import sys
from typing import Any


class RefusedError(BaseException):
    """Not an `Exception`, so that nothing takes it for a network that is down and goes on."""


def host_of(event: str, arguments: tuple[Any, ...]) -> str | bytes | None:
    """The host that an audited event of `socket` asks for, if it asks for any."""
    match event:
        case "socket.connect" | "socket.sendto" | "socket.sendmsg":
            import socket

            sender, address = arguments[:2]
            return address[0] if address and sender.family in (socket.AF_INET, socket.AF_INET6) else None
        case "socket.getaddrinfo" | "socket.gethostbyname" | "socket.gethostbyaddr":
            return arguments[0]
        case "socket.getnameinfo":
            return arguments[0][0]
    return None


def is_local(host: str | bytes) -> bool:
    """Whether a host is this machine: `localhost`, a loopback address, or the wildcard that servers bind to."""
    from ipaddress import ip_address

    name = host.decode() if isinstance(host, bytes) else host
    if name in {"", "localhost"}:
        return True
    try:
        address = ip_address(name)
    except ValueError:  # a name, which only a network can tell
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook.

    Raises:
        RefusedError: if a host beyond this machine is asked for.
    """
    host = host_of(event, arguments) if event.startswith("socket.") else None
    if host is not None and not is_local(host):
        raise RefusedError(
            f"{event} asks for {host!r}, but tests run without a network: "
            "use images that the package holds or the test makes, or a server on 127.0.0.1."
        )


sys.addaudithook(refuse)
