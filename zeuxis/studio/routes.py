"""Addresses that give files, for the browser to show: never a path, always a name that is looked up."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from zeuxis.studio import pictures
from zeuxis.studio.state import SLOW, Studio

__all__ = ["register"]

# Addresses of pictures hold a version, so a browser may keep them.
KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
# A report or picture may come from a stranger's run: it is shown, and can do nothing.
HARMLESS = {"Content-Security-Policy": "sandbox; default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'"}


def register(app: FastAPI, studio: Studio) -> None:
    """Adds the addresses to an application."""
    shelf = studio.shelf

    @app.get("/picture/strip/{name}")
    async def strip(name: str) -> Response:
        def make() -> bytes:
            return shelf.once(("strip", name, shelf.version(name)), lambda: pictures.strip(shelf, name))

        shelf.folder(name)
        return Response(await studio.models.do(SLOW, make), media_type="image/png", headers=KEPT)

    @app.get("/picture/snapshot/{name}/{file}")
    async def snapshot(name: str, file: str) -> Response:
        content = await run_in_threadpool(pictures.snapshot, shelf, name, file)
        return Response(content, media_type="image/png", headers=KEPT | HARMLESS)

    @app.get("/picture/figure/{name}/{file}")
    async def figure(name: str, file: str) -> Response:
        content = await run_in_threadpool(lambda: shelf.file(name, "figures", file).read_bytes())
        return Response(content, media_type="image/png", headers=KEPT | HARMLESS)

    @app.get("/file/report/{name}")
    async def report(name: str) -> Response:
        content = await run_in_threadpool(lambda: shelf.file(name, "report.html").read_bytes())
        return Response(content, media_type="text/html", headers=HARMLESS)
