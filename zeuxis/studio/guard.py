"""Who may talk to the studio: those who have its token, through an address that is the studio's own.

Three checks stand before everything else, pages, pictures and sockets alike:

- **Host.** A stranger's page can point its own name at 127.0.0.1 (DNS rebinding): only the studio's names are served.
- **Origin.** A browser says which page sent a request. Requests from other pages are refused.
- **Token.** Another user of this machine can reach the port. The address that the studio prints holds a random token;
  the first visit exchanges it for a cookie, so that the token leaves the address bar.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable
from secrets import compare_digest
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "names_of"]

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; "
        "frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
}
# Bytes of a request's body; the pages that take files count them again.
MOST_BYTES = 260 * 2**20

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Zeuxis studio</title>
<style>body{{font:16px/1.55 system-ui,sans-serif;color:#1f2933;background:#f5f7f9;margin:0}}
main{{max-width:34rem;margin:12vh auto;padding:0 1rem}}h1{{font-size:1.5rem}}
input,button{{font:inherit;padding:.5rem .7rem;border-radius:8px;border:1px solid #62707d}}
button{{background:#2f6690;color:#fff;border-color:#2f6690}}
@media (prefers-color-scheme:dark){{body{{color:#e6ebf0;background:#14191f}}}}</style></head>
<body><main><h1>{title}</h1><p>{text}</p>{form}</main></body></html>"""
FORM = """<form method="get" action="/"><label for="token">Token</label><br>
<input id="token" name="token" type="password" autocomplete="off" required> <button>Open the studio</button></form>"""


def names_of(host: str, port: int) -> frozenset[str]:
    """Returns the values of a Host header under which a studio on this host and port is served; empty for any."""
    if host in ("", "0.0.0.0", "::"):
        return frozenset()
    names = {host, "localhost", "127.0.0.1", "[::1]"} if host in ("localhost", "127.0.0.1", "::1") else {host}
    return frozenset(f"{f'[{name}]' if ':' in name and name[0] != '[' else name}:{port}".lower() for name in names)


class Guard:
    """ASGI middleware that lets only the studio's own user through.

    Args:
        app: what is guarded.
        token: the secret.
        names: accepted values of the Host header; empty where the studio listens on every address of the machine.
        port: for the cookie's name, since browsers share cookies between the ports of a host.
    """

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str], port: int) -> None:
        self.app, self.token, self.names, self.cookie = app, token, frozenset(names), f"zeuxis-{port}"
        # The cookie proves that its owner had the token, and does not tell it.
        self.proof = hashlib.sha256(f"zeuxis studio {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or refuses it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self.names and host not in self.names:
            await _refuse(scope, send, 421, "Not this address", "The studio answers only under its own address.")
            return
        if not self._same_origin(headers, host):
            await _refuse(scope, send, 403, "Refused", "This request comes from another page than the studio's.")
            return
        if int(headers.get("content-length") or 0) > MOST_BYTES:
            await _refuse(scope, send, 413, "Too large", "The studio does not take as much at once.")
            return
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and scope["type"] == "http" and scope["method"] == "GET" and self._is(given, self.token):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            place = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            cookie = f"{self.cookie}={self.proof}; Path=/; HttpOnly; SameSite=Strict"
            head = [
                (b"location", place.encode()),
                (b"set-cookie", cookie.encode()),
                (b"referrer-policy", b"no-referrer"),
            ]
            await send({"type": "http.response.start", "status": 303, "headers": head})
            await send({"type": "http.response.body"})
            return
        if not self._is(self._presented(headers), self.proof):
            text = "Open the address that the studio printed when it started: it ends in its token. Or give the token."
            await _refuse(scope, send, 401, "This studio wants its token", text, FORM)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    sent.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)

    def _same_origin(self, headers: Headers, host: str) -> bool:
        """Whether a request comes from the studio's own page, or from no page at all, such as a typed address."""
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return False
        # Browsers send it with pictures and frames too, which have no Origin; a link from elsewhere is a navigation.
        site = headers.get("sec-fetch-site", "none")
        return site in ("same-origin", "none") or headers.get("sec-fetch-mode") == "navigate"

    def _presented(self, headers: Headers) -> str:
        # Browsers send the cookies of all ports of a host, and Python's own parser stops at the first that it dislikes.
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "")

    @staticmethod
    def _is(given: str, expected: str) -> bool:
        return compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


async def _refuse(scope: Scope, send: Send, status: int, title: str, text: str, form: str = "") -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = PAGE.format(title=html.escape(title), text=html.escape(text), form=form).encode()
    head: list[Any] = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
    head += [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
