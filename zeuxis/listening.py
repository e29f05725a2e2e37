"""A socket to serve on, and the secret that a server beyond this machine needs."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from zeuxis.errors import UserError

__all__ = ["address_of", "listen", "require_secret"]

# Characters of a token that the user sets, at least.
SHORTEST = 12


def listen(host: str, port: int, who: str) -> socket.socket:
    """Returns a socket that listens already, so that whoever opens its address at once waits.

    Args:
        host: the address.
        port: the port; 0 for any that is free.
        who: what serves, as a sentence begins with it.

    Raises:
        UserError: for an address that cannot be used.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(f"{who} cannot listen on {host}, port {port}: {error}. Choose another --port.") from error
    return listening


def address_of(host: str, listening: socket.socket) -> str:
    """Returns the address of a server, such as `http://127.0.0.1:8890`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def require_secret(host: str, token: str, who: str, variable: str) -> bool:
    """Returns whether others can reach a host; if so, the token must be a secret of the user's.

    Args:
        host: the address.
        token: what the user set; empty if nothing.
        who: what serves.
        variable: the environment variable that holds the token.

    Raises:
        UserError: for an address beyond this machine with a short token or none.
    """
    beyond = not _is_loopback(host)
    if beyond and len(token) < SHORTEST:
        raise UserError(
            f"On {host} others in the network can reach {who}, so it needs a secret of yours: set {variable}, or "
            f"--token, to at least {SHORTEST} characters."
        )
    return beyond


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
