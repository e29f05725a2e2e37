"""A server of one run: samples, images of latents, latents of images, for programs in any language.

Requests and answers are JSON; images are PNG files in base64, and one can be had as such (`/sample.png`). The page
`/docs` describes everything and tries it out; `/openapi.json` is for programs that write clients.

The server listens on this machine alone unless it is told otherwise. Every request needs the token, in the header
`Authorization: Bearer TOKEN`. How much one request may ask for is limited, and one is computed at a time.
"""

from __future__ import annotations

import base64
import secrets
from io import BytesIO
from threading import Lock
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeuxis.data import to_bytes
from zeuxis.data.pictures import as_arrays, sent_picture
from zeuxis.errors import UserError, one_of, shortened, shown
from zeuxis.listening import address_of, listen, require_secret
from zeuxis.progress import say
from zeuxis.recipe import WANTED, expected
from zeuxis.run import Run

__all__ = ["Limited", "build", "misfit", "serve"]

# Images of one request, bytes of one request, the largest number of a latent, and the last seed.
MOST_IMAGES, MOST_BYTES, FURTHEST, LAST = 64, 16 * 2**20, 1e6, 2**31 - 1

Count = Annotated[int, Field(ge=1, le=MOST_IMAGES, description="number of images")]
Seed = Annotated[int, Field(ge=0, le=LAST, description="the same seed gives the same images")]
Asked = Annotated[
    str | None,
    Field(max_length=200, description="class, or attributes as Smiling=1,Male=0, of a conditional model"),
]
Scale = Annotated[float, Field(ge=0, le=10, description="latents are multiplied by it; below 1: nearer to the average")]
Latent = list[Annotated[float, Field(ge=-FURTHEST, le=FURTHEST, allow_inf_nan=False)]]


class Body(BaseModel):
    """Base of what is sent and answered."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SampleRequest(Body):
    """What to sample."""

    count: Count = 1
    seed: Seed = 1
    label: Asked = None
    scale: Scale = 1.0


class DecodeRequest(Body):
    """Latents to make images of."""

    latents: list[Latent] = Field(min_length=1, max_length=MOST_IMAGES, description="one list of numbers an image")
    label: Asked = None


class InterpolateRequest(Body):
    """Two places to go between: classes of a conditional model, else seeds or latents as `0.5,-1`."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    start: str = Field(alias="from", max_length=10_000)
    end: str = Field(alias="to", max_length=10_000)
    steps: int = Field(8, ge=2, le=MOST_IMAGES)
    seed: Seed = 1


class Images(Body):
    """Images, each a PNG file in base64."""

    images: list[str]


class Samples(Images):
    """Images and the latents that they were made of."""

    latents: list[list[float]]


class Latents(Body):
    """Latents of images, one list of numbers each."""

    latents: list[list[float]]


class Facts(Body):
    """What is served."""

    name: str
    description: str
    recipe: str
    model: str
    step: int
    size: list[int] = Field(description="height, width, channels")
    latent: int | None = Field(description="numbers of a latent")
    conditional: bool
    classes: list[str]
    most_images: int


class Refusal(Body):
    """Why a request was refused, in a sentence."""

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The request cannot be answered."},
    401: {"model": Refusal, "description": "The token is missing or wrong."},
    413: {"model": Refusal, "description": "The request is too large."},
    422: {"model": Refusal, "description": "The request is not as described."},
}


BEARER = HTTPBearer(auto_error=False, description="the token that `zeuxis serve` printed")


# What a model must be able to do for an address to be there.
LACKING = {
    "/encode": "encode images", "/classify": "classify images",
    **dict.fromkeys(("/sample", "/sample.png", "/decode", "/interpolate"), "make images"),
}  # fmt: skip


class UnknownError(Exception):
    """The token is missing or wrong."""


def misfit(error: RequestValidationError) -> str:
    """Returns in a sentence what does not fit in a request."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{place} is missing."
    if first["type"] == "extra_forbidden":
        return f"{place} is not known here; /docs lists what is."
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}."
    if isinstance(first["input"], bytes):
        return "The body is not JSON, or the header `Content-Type: application/json` is missing."
    if "UploadFile" in first["msg"]:
        return f"{place} should be a file, sent as multipart/form-data."
    if first["type"] in WANTED:
        given = "null" if first["input"] is None else shown(first["input"])
        return f"{place} should be {expected(first)}, not {given}."
    return f"{place}: {first['msg']}."


def build(run: Run, token: str) -> ASGIApp:
    """Returns the application that serves a run.

    Args:
        run: the run; what its model cannot do has no address.
        token: the secret.
    """
    app = FastAPI(title=f"Zeuxis: {run.name}", description=run.recipe.description, version=str(run.step))
    alone = Lock()  # a model is not made for several threads at a time

    def known(given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if given is None or not secrets.compare_digest(given.credentials.encode(), token.encode()):
            raise UnknownError

    @app.exception_handler(UnknownError)
    async def unknown(request: Request, error: UnknownError) -> Response:
        text = "Send the token that `zeuxis serve` printed, in the header Authorization: Bearer TOKEN."
        return JSONResponse({"error": text}, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> Response:
        return JSONResponse({"error": shortened(str(error))}, status_code=400)

    @app.exception_handler(HTTPException)
    async def absent(request: Request, error: HTTPException) -> Response:
        address = request.url.path
        text = f"{str(error.detail).rstrip('.')}."
        if error.status_code == 404:
            lacking = LACKING.get(address)
            reason = f": the model '{run.recipe.model.name}' does not {lacking}" if lacking else ""
            known = ", ".join(sorted(str(path) for path in app.openapi()["paths"]))
            text = f"There is no address {address} here{reason}. There are {known}, and /docs."
        return JSONResponse({"error": shortened(text)}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": shortened(misfit(error))}, status_code=422)

    latent_size = run.latent_size if run.generates else None
    common: dict[str, Any] = {"responses": REFUSALS, "dependencies": [Depends(known)]}

    @app.head("/", include_in_schema=False, **common)
    @app.get("/", **common)
    def facts() -> Facts:
        """What is served: the model, its images, its classes, and the limits."""
        recipe = run.recipe
        height, width = recipe.data.shape[1:]
        return Facts(
            name=run.name, description=recipe.description, recipe=recipe.name, model=recipe.model.name, step=run.step,
            size=[height, width, recipe.data.channels], latent=latent_size,
            conditional=run.conditional, classes=list(run.model.conditions.classes) if run.conditional else [],
            most_images=MOST_IMAGES,
        )  # fmt: skip

    if run.generates:

        def sampled(asked: SampleRequest) -> tuple[np.ndarray, np.ndarray]:
            with alone:
                condition = _condition(run, asked.label, asked.count)
                latents = run.latents_of_samples(asked.count, asked.seed, condition=condition, scale=asked.scale)
                return run.decode(latents, condition), latents

        @app.post("/sample", **common)
        def sample(asked: SampleRequest) -> Samples:
            """New images. Without a label, a conditional model shows its classes in turn."""
            images, latents = sampled(asked)
            return Samples(images=_encoded(images), latents=latents.tolist())

        @app.head("/sample.png", include_in_schema=False, **common)
        @app.get("/sample.png", response_class=Response, **_picture(common))
        def sample_png(
            request: Request,
            seed: Annotated[int, Query(ge=0, le=LAST)] = 1,
            label: Annotated[str | None, Query(max_length=200)] = None,
            scale: Annotated[float, Query(ge=0, le=10)] = 1.0,
        ) -> Response:
            """One new image, as a PNG file."""
            for name in request.query_params:
                if name not in ("seed", "label", "scale"):
                    raise one_of("setting of a picture", name, ("seed", "label", "scale"))
                if len(request.query_params.getlist(name)) > 1:
                    raise UserError(f"{name} is given twice; give it once.")
            images, _ = sampled(SampleRequest(seed=seed, label=label, scale=scale))
            return Response(_png(images[0]), media_type="image/png")

        @app.post("/decode", **common)
        def decode(asked: DecodeRequest) -> Images:
            """Images of latents."""
            count = len(asked.latents)
            for number, latent in enumerate(asked.latents):
                if len(latent) != latent_size:
                    raise UserError(
                        f"A latent of this model has {latent_size} numbers, and number {number} has {len(latent)}."
                    )
            with alone:
                latents = np.array(asked.latents, np.float32)
                return Images(images=_encoded(run.decode(latents, _condition(run, asked.label, count))))

        @app.post("/interpolate", **common)
        def interpolate(asked: InterpolateRequest) -> Images:
            """Images on the way from one place to another."""
            with alone:
                images = run.interpolate(asked.start, asked.end, steps=asked.steps, seed=asked.seed)
            return Images(images=_encoded(images))

    if run.encodes:

        @app.post("/encode", **common)
        def encode(
            images: Annotated[list[UploadFile], File(description="image files, cropped and scaled as in training")],
            label: Annotated[str | None, Form(max_length=200)] = None,
        ) -> Latents:
            """Latents of image files; `/decode` makes images of them again."""
            pixels = _pictures(run, images)
            with alone:
                return Latents(latents=run.encode(pixels, run.condition_for(pixels, label)).tolist())

    if run.classifies:

        @app.post("/classify", **common)
        def classify(images: Annotated[list[UploadFile], File(description="image files")]) -> list[dict[str, float]]:
            """The probability of each class for each image file."""
            pixels = _pictures(run, images)
            with alone:
                return [dict(zip(run.classes, map(float, row), strict=True)) for row in run.classify(pixels)]

    return Limited(app, MOST_BYTES)


def serve(run: Run, *, host: str = "127.0.0.1", port: int = 8891, token: str = "") -> None:
    """Serves a run until it is interrupted.

    Args:
        run: the run.
        host: the address to listen on.
        port: the port; 0 for any that is free.
        token: the secret that requests carry; random if empty.

    Raises:
        UserError: for an address beyond this machine without a token of the user's, or one that cannot be used; and
            for a run without weights.
    """
    _ = run.model  # before anything is promised
    if require_secret(host, token, "the server", "ZEUXIS_SERVE_TOKEN"):
        say(f"Warning: what is sent to {host} and back is not encrypted; put a server with TLS in front of it.")
    listening = listen(host, port, "The server")
    token = token or secrets.token_urlsafe(24)
    place = address_of(host, listening)
    say(
        f"{run.name} is at {place}, described at {place}/docs\n\n"
        f"    curl -H 'Authorization: Bearer {token}' {place}/\n\n"
        "The page /docs loads a part of itself from the internet; /openapi.json does not. Ctrl-C ends it."
    )
    config = uvicorn.Config(build(run, token), log_level="error", timeout_graceful_shutdown=2, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


class Limited:
    """Refuses requests with a body of more than so many bytes.

    Args:
        app: what answers the others.
        most: bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The body is read first and handed on whole: a server cannot answer well in the middle of one.
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.most:
                text = f"A request may have {self.most // 2**20} MiB; send fewer or smaller images."
                await JSONResponse({"error": text}, status_code=413)(scope, receive, send)
                return
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)


def _condition(run: Run, label: str | None, count: int) -> np.ndarray | None:
    """Returns the conditions `(count, K)` of a label, or the classes in turn; None if the model takes none."""
    if label is None:
        return run.in_turn(count)
    if not run.conditional:
        raise UserError(f"{run.name} is not conditional, so it takes no label.")
    return np.repeat(run.condition_of([label]), count, axis=0)


def _pictures(run: Run, files: list[UploadFile]) -> np.ndarray:
    """Returns uploaded image files as the model takes them, `(N, H, W, C)` in 0..1."""
    if not 1 <= len(files) <= MOST_IMAGES:
        raise UserError(f"Send from 1 to {MOST_IMAGES} images at a time, not {len(files)}.")
    options = run.recipe.data
    prepared = [sent_picture(file.file.read(), options, f"File {number}") for number, file in enumerate(files)]
    return as_arrays(prepared, options)


def _png(image: np.ndarray) -> bytes:
    pixels = to_bytes(image)
    with BytesIO() as file:
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
        return file.getvalue()


def _encoded(images: np.ndarray) -> list[str]:
    return [base64.b64encode(_png(image)).decode() for image in images]


def _picture(common: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of an address that answers with a PNG file."""
    png = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "The image."}
    return common | {"responses": {**common["responses"], 200: png}}
