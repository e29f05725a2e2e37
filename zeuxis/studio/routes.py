"""Addresses that give files, for the browser to show: never a path, always a name that is looked up."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from zeuxis.errors import UserError
from zeuxis.files import is_name
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

    @app.get("/picture/pretrained/{name}")
    async def pretrained(name: str) -> Response:
        content = await studio.models.do(
            SLOW, lambda: shelf.once(("pretrained", name), lambda: pictures.pretrained(name))
        )
        return Response(content, media_type="image/png", headers=KEPT)

    @app.get("/picture/sheet/{key}")
    async def sheet(key: str) -> Response:
        path = studio.jobs.folder / "sheets" / f"{key}.png"
        if not is_name(path.name) or not key.isalnum() or not path.is_file():
            raise UserError("There is no such sheet.")
        return Response(await run_in_threadpool(path.read_bytes), media_type="image/png", headers=HARMLESS)

    @app.get("/picture/trial/{sitting}/{question}/{index}")
    async def trial(sitting: str, question: int, index: int) -> Response:
        current = studio.sittings.get(sitting)
        # Only the open question's: nothing can be looked at before its time.
        if current is None or question != current.at or not current.question or index not in (0, 1):
            raise UserError("There is no such picture.")
        content = current.question.pictures[index % len(current.question.pictures)]
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})

    @app.get("/picture/samples/{name}")
    async def samples(name: str, seed: int = 1) -> Response:
        def make() -> bytes:
            return pictures.png(shelf.open(name).sample(16, seed=seed), 4)

        return Response(await studio.models.do(SLOW, make), media_type="image/png", headers=KEPT)

    @app.get("/file/comparison/{file}")
    async def comparison(file: str) -> Response:
        path = shelf.runs / file
        if not is_name(file) or not re.fullmatch(r"compare-.*\.html", file) or not path.is_file() or path.is_symlink():
            raise UserError("There is no such comparison.")
        return Response(await run_in_threadpool(path.read_bytes), media_type="text/html", headers=HARMLESS)

    @app.post("/upload")
    async def begin() -> dict[str, str]:
        return {"name": studio.uploads.begin()}

    @app.put("/upload/{name}/{file:path}")
    async def store(name: str, file: str, request: Request) -> dict[str, str]:
        await studio.uploads.store(name, file, request.stream())
        return {}

    @app.get("/file/report/{name}")
    async def report(name: str) -> Response:
        content = await run_in_threadpool(lambda: shelf.file(name, "report.html").read_bytes())
        return Response(content, media_type="text/html", headers=HARMLESS)
