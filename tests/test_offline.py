"""No test reaches a network or real data by accident: connections are refused, and the data directory is empty."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback_only import RefusedError

from zeuxis.data.registry import data_dir

REACHING: dict[str, Callable[[], object]] = {
    "IPv4": lambda: socket.socket().connect(("192.0.2.1", 80)),
    "IPv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    "an IPv4 address written as IPv6": lambda: socket.socket(socket.AF_INET6).connect(("::ffff:192.0.2.1", 80)),
    "a connection that only returns its error": lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    "a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53)),
    "a look-up": lambda: socket.getaddrinfo("example.org", 443),
    "an old look-up": lambda: socket.gethostbyname("example.org"),
    "a reverse look-up": lambda: socket.gethostbyaddr("192.0.2.1"),
    "a name of a number": lambda: socket.getnameinfo(("192.0.2.1", 80), 0),
    "a connection by name": lambda: socket.create_connection(("example.org", 443)),
}


@pytest.mark.parametrize("how", REACHING)
def test_connections_beyond_this_machine_are_refused(how: str) -> None:
    with pytest.raises(RefusedError, match="tests run without a network"):
        REACHING[how]()


def test_they_are_refused_in_processes_that_tests_start() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "tests run without a network" in ended.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_can_be_reached(host: str) -> None:
    """Nothing listens at port 9; the operating system says so, and not the hook."""
    with pytest.raises(OSError):
        socket.create_connection((host, 9), timeout=5)


def test_no_proxy_leads_out() -> None:
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]


def test_the_data_directory_is_empty() -> None:
    """For tests without the marker `data`, whatever ZEUXIS_DATA was when the tests began."""
    assert not list(Path(data_dir()).iterdir())
