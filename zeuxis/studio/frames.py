"""The socket of Explore: a latent goes in, a picture comes out, and of several pictures only the newest is made.

A message is the length of a header as four bytes, little-endian, the header as JSON, and numbers or bytes. A request
for a live picture replaces one that is still waiting, so that however slow a model is, there is never a queue of stale
frames. Everything else is answered in turn, after live pictures.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from zeuxis.errors import UserError, shortened
from zeuxis.studio.explorer import MOST_FRAMES, MOST_PICTURES, Explorer
from zeuxis.studio.state import LIVE, SLOW, Studio

__all__ = ["pack", "register", "unpack"]

# Requests of one page that wait, at most.
WAITING = 64
# Seconds after which is looked whether the run has new weights.
FRESH = 2.0


def pack(header: dict[str, Any], content: bytes = b"") -> bytes:
    """Returns a message."""
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + content


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns header and content of a message.

    Raises:
        ValueError: if it is none.
    """
    if len(message) < 4:
        raise ValueError("too short")
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header, message[4 + length :]


def register(app: FastAPI, studio: Studio) -> None:
    """Adds the socket to an application."""

    @app.websocket("/socket/explore/{name}")
    async def explore(socket: WebSocket, name: str) -> None:
        await socket.accept()
        with suppress(WebSocketDisconnect, RuntimeError):
            await _Conversation(studio, name, socket).hold()


class _Conversation:
    """One page that explores one run."""

    def __init__(self, studio: Studio, name: str, socket: WebSocket) -> None:
        self.studio, self.name, self.socket = studio, name, socket
        self.explorer: Explorer | None = None
        self.opened = 0.0
        self.live: tuple[dict[str, Any], bytes] | None = None
        self.woken = asyncio.Event()
        self.waiting: asyncio.Queue[tuple[dict[str, Any], bytes]] = asyncio.Queue(WAITING)

    async def hold(self) -> None:
        tasks = [asyncio.create_task(self._live()), asyncio.create_task(self._others())]
        try:
            while True:
                message = await self.socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                try:
                    header, content = unpack(message.get("bytes") or b"")
                except (ValueError, struct.error, RecursionError):
                    await self.socket.close(1003)
                    return
                if header.get("do") == "live":
                    self.live = header, content
                    self.woken.set()
                elif self.waiting.full():
                    await self._send({"id": header.get("id"), "error": "Too much is asked for at once."})
                else:
                    self.waiting.put_nowait((header, content))
        finally:
            for task in tasks:
                task.cancel()

    async def _live(self) -> None:
        while True:
            await self.woken.wait()
            self.woken.clear()
            if self.live:
                (header, content), self.live = self.live, None
                await self._answer(LIVE, header, content)

    async def _others(self) -> None:
        while True:
            await self._answer(SLOW, *await self.waiting.get())

    async def _answer(self, urgency: int, header: dict[str, Any], content: bytes) -> None:
        number = header.get("id")
        try:
            if self.explorer is None or time.monotonic() - self.opened > FRESH:
                self.explorer = await self.studio.models.do(urgency, self.studio.explorer, self.name)
                self.opened = time.monotonic()
            explorer = self.explorer
            if header.get("do") in ("map", "point") and not explorer.mapped:
                await self._prepare(explorer.encoding())
            if header.get("do") == "directions" and not explorer.studied:
                await self._prepare(explorer.sampling())
            if header.get("do") == "judge" and not explorer.scored:
                await self._prepare(explorer.scoring())
            if header.get("do") == "photograph" and explorer.projects:
                await self._prepare(explorer.projecting(*_photograph(explorer, content)))
            answer, result = await self.studio.models.do(urgency, answered, explorer, header, content)
        except UserError as error:
            answer, result = {"error": shortened(str(error))}, b""
        except Exception as error:  # noqa: BLE001 - whatever was sent, the socket goes on answering
            answer, result = {"error": f"This cannot be done: {shortened(str(error))[:300]}"}, b""
        await self._send({**answer, "id": number}, result)

    async def _prepare(self, parts: Iterator[None]) -> None:
        """Does long work part by part; live pictures go between."""
        while await self.studio.models.do(SLOW, lambda: next(parts, parts)) is None:
            continue

    async def _send(self, header: dict[str, Any], content: bytes = b"") -> None:
        await self.socket.send_bytes(pack(header, content))


def answered(explorer: Explorer, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the answer to one request."""
    options = header.get("options") or {}
    match header.get("do"):
        case "live" | "pictures":
            return {}, explorer.pictures(_numbers(content), options).tobytes()
        case "describe":
            return explorer.describe(), b""
        case "latents":
            latents = explorer.run.latents(min(int(header.get("count", 1)), MOST_PICTURES), _whole(header, "seed"))
            return {}, latents.astype("<f4").tobytes()
        case "directions":
            found = explorer.directions()
            facts = [{"name": d.name, "group": d.group, "reach": d.reach} for d in found]
            return {"directions": facts}, b"".join(d.vector.astype("<f4").tobytes() for d in found)
        case "map":
            axes = _numbers(content)
            if axes.size != 2 * explorer.latent:
                raise UserError(f"A map needs two directions of {explorer.latent} numbers.")
            axes = axes.reshape(2, explorer.latent)
            names, labels = explorer.colouring(str(header.get("attribute", "")))
            places = (explorer.points.latents @ axes.T).astype("<f4")
            return {"names": names, "count": len(places)}, places.tobytes() + labels.astype("<u2").tobytes()
        case "point":
            name, image, latent, condition = explorer.point(_whole(header, "index"))
            numbers = latent if condition is None else np.concatenate([latent, condition[0]])
            return {"name": name}, numbers.astype("<f4").tobytes() + image.tobytes()
        case "judge":
            return explorer.judged(_numbers(content), options), b""
        case "nearest":
            names, images, distances = explorer.nearest(_numbers(content), options)
            return {"names": names, "distances": distances}, images.tobytes()
        case "photograph":
            image, latent = explorer.photograph(*_photograph(explorer, content))
            return {}, latent.astype("<f4").tobytes() + image.tobytes()
        case "film":
            values = _numbers(content)
            width = explorer.latent + explorer.condition
            if values.size > MOST_FRAMES * width:
                raise UserError(f"A film has at most {MOST_FRAMES} pictures.")
            return {}, explorer.film(explorer.pictures(values, options), str(header.get("kind", "gif")))
        case "archive":
            return {}, explorer.archive(_numbers(content))
    raise UserError("The studio does not know this request; load the page again.")


def _whole(header: dict[str, Any], name: str) -> int:
    if name not in header:
        raise UserError(f"The request lacks the field '{name}'.")
    return int(header[name])


def _photograph(explorer: Explorer, content: bytes) -> tuple[bytes, np.ndarray | None]:
    """Returns the file and the condition that a page sends."""
    width = 4 * explorer.condition
    return content[width:], _numbers(content[:width]) if width else None


def _numbers(content: bytes) -> np.ndarray:
    return np.frombuffer(content, "<f4").astype(np.float32)
