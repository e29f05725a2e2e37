"""The studio without a browser: who is let in, what is served, and what its parts compute."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nicegui", reason="the studio needs NiceGUI: pip install 'zeuxis[studio]'")
from nicegui.testing import User, user_simulation
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from zeuxis.curves import Curves, thinned
from zeuxis.errors import UserError
from zeuxis.listing import annotate
from zeuxis.pretrained import unpack
from zeuxis.run import Run, find_run
from zeuxis.studio.explorer import Explorer, principal, strongest
from zeuxis.studio.frames import answered, pack
from zeuxis.studio.frames import unpack as unpacked
from zeuxis.studio.guard import Guard, names_of
from zeuxis.studio.jobs import Jobs
from zeuxis.studio.shelf import Shelf
from zeuxis.trust import UntrustedError

TOKEN = "a-secret-of-the-test"
HOME = "http://127.0.0.1:8890"


def guarded() -> TestClient:
    app = Starlette(routes=[Route("/{rest:path}", lambda request: PlainTextResponse("inside"))])
    return TestClient(Guard(app, TOKEN, names_of("127.0.0.1", 8890), 8890), base_url=HOME, follow_redirects=False)


def entered() -> TestClient:
    client = guarded()
    assert client.get("/", params={"token": TOKEN}).status_code == 303
    return client


def test_the_token_opens_the_studio_and_leaves_the_address() -> None:
    client = guarded()
    assert client.get("/").status_code == 401
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    opened = client.get("/run/a b", params={"token": TOKEN, "x": "1"})
    assert (opened.status_code, opened.headers["location"]) == (303, "/run/a%20b?x=1")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert client.get("/").text == "inside"


def test_the_way_in_leads_to_no_other_site() -> None:
    opened = guarded().get(f"{HOME}//evil.example/x", params={"token": TOKEN})
    assert opened.headers["location"] == "/evil.example/x"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "127.0.0.1.evil.example:8890", "", "localhost:88900"])
def test_other_hosts_are_refused(host: str) -> None:
    assert entered().get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8890", "localhost:8890", "LOCALHOST:8890", "[::1]:8890"])
def test_its_own_names_are_served(host: str) -> None:
    client = entered()
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    assert client.get("/", headers={"host": host, "cookie": cookie}).status_code == 200
    # Those of other programs on this machine, which need not follow the rules.
    assert client.get("/", headers={"host": host, "cookie": f'a={{"b": 1}}; c d=e; {cookie}'}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1:8890.evil.example"]
)
def test_other_origins_are_refused_with_the_cookie(origin: str) -> None:
    client = entered()
    assert client.post("/x", headers={"origin": origin}).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers={"origin": origin}):
        pass


def test_pictures_are_not_shown_on_other_sites() -> None:
    site = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert entered().get("/picture", headers=site).status_code == 403
    assert entered().get("/", headers=site | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_a_socket_needs_the_token_too() -> None:
    with pytest.raises(WebSocketDisconnect), guarded().websocket_connect("/ws", headers={"origin": HOME}):
        pass


def test_beyond_this_machine_the_user_sets_a_token(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zeuxis", "studio", "--host", "0.0.0.0", "--runs", str(tmp_path), "--no-browser"]
    started = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert started.returncode == 2
    assert "needs a secret of yours" in started.stderr


@pytest.mark.parametrize("missing", ["nicegui", "uvicorn"])
def test_without_nicegui_a_sentence_says_what_to_install(missing: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; sys.argv = ['zeuxis', 'studio', '--no-browser']"
    command = [sys.executable, "-c", f"{code}; from zeuxis.__main__ import main; main()"]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.strip() == "Error: The studio needs NiceGUI: pip install 'zeuxis[studio]'."


def test_uploads_are_bounded_and_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeuxis.studio import uploads

    store = uploads.Uploads(tmp_path / "uploads")
    name = store.begin()

    async def content(*pieces: bytes) -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield piece

    def put(file: str, *pieces: bytes, drop: str = name) -> None:
        asyncio.run(store.store(drop, file, content(*pieces)))

    put("../../cats/<b>1.PNG", b"one", b"two")
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written == tmp_path / "uploads" / name / "cats" / "%3Cb%3E1.PNG" and written.read_bytes() == b"onetwo"
    for file in ("a.sh", "", "..", "/", "a/b/c/d/e.png"):
        with pytest.raises(UserError):
            put(file, b"x")
    with pytest.raises(UserError, match="belong to no drop"):
        put("a.png", b"x", drop="../runs")
    monkeypatch.setattr(uploads, "MOST_BYTES", 10)
    with pytest.raises(UserError, match="too large"):
        put("big.png", b"123456", b"123456")

    async def both() -> None:
        await asyncio.gather(*(store.store(name, file, content(b"1", b"2")) for file in ("b.jfif", "labels.tsv")))

    asyncio.run(both())
    monkeypatch.setattr(uploads, "MOST_FILES", 3)
    with pytest.raises(UserError, match="More than 3 files"):
        put("more.png", b"1")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize("place", ["/etc", "/", "~", "..", "../..", "/proc/self", "x\0y", "", "~nobody-here/x"])
def test_images_are_read_from_the_data_folders_alone(place: str, tmp_path: Path) -> None:
    from zeuxis.studio.pages.train import allowed
    from zeuxis.studio.state import Studio

    studio = Studio(tmp_path / "runs", [tmp_path / "mine"])
    with pytest.raises(UserError):
        allowed(place, studio)
    (tmp_path / "mine").mkdir()
    assert allowed(str(tmp_path / "mine"), studio) == str((tmp_path / "mine").resolve())
    (tmp_path / "mine" / "link").symlink_to("/etc")
    with pytest.raises(UserError, match="reads images below"):
        allowed(str(tmp_path / "mine" / "link"), studio)


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def package_stays_loaded() -> Iterator[None]:
    """NiceGUI's simulated user drops the modules of pages, and the package with them; later tests need it whole."""
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "zeuxis"}
    yield
    sys.modules.update(loaded)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    for name in ("digits-vae", "digits-cgan"):
        unpack(name, tmp_path)
    return Shelf(tmp_path)


NAMES = [
    "..",
    ".",
    "",
    "/etc",
    "../x",
    "a/../pretrained-digits-vae",
    "..\\x",
    "%2e%2e",
    "pretrained-digits-vae/",
    "x\0y",
    "a" * 5000,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_runs_open_nothing(shelf: Shelf, name: str) -> None:
    with pytest.raises(UserError, match="There is no run"):
        shelf.folder(name)


def test_links_out_of_the_folder_of_runs_are_not_followed(
    shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    run = unpack("digits-vae", outside)
    (shelf.runs / "linked").symlink_to(run)
    with pytest.raises(UserError, match="a link out of"):
        shelf.folder("linked")
    assert "linked" not in shelf.names()
    (outside / "secret.png").write_text("secret")
    figures = shelf.runs / "pretrained-digits-vae" / "figures"
    figures.mkdir()
    (figures / "a.png").symlink_to(outside / "secret.png")
    for parts in (("figures", "a.png"), ("figures", ".."), ("..", "recipe.toml"), ("figures", "../recipe.toml")):
        with pytest.raises(UserError, match="has no file"):
            shelf.file("pretrained-digits-vae", *parts)
    assert shelf.file("pretrained-digits-vae", "recipe.toml").is_file()


def test_a_list_is_read_again_only_where_something_changed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeuxis.studio import shelf as module

    first = shelf.entries()
    assert [entry.name for entry in first] == ["pretrained-digits-cgan", "pretrained-digits-vae"]
    read = []
    true_entry = module.entry
    monkeypatch.setattr(module, "entry", lambda folder: read.append(folder.name) or true_entry(folder))
    assert shelf.entries() == first and not read
    annotate(shelf.folder("pretrained-digits-vae"), note="<b>mine</b>")
    assert [entry.note for entry in shelf.entries()] == ["", "<b>mine</b>"]
    assert read == ["pretrained-digits-vae"]


def stranger(run: Run, runs: Path) -> Path:
    """Copies a run that names code, which leaves a mark where it runs; returns its recipe."""
    folder = Path(copytree(run.path, runs / "strange"))
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine.py").write_text(f"open({str(runs / 'ran')!r}, 'w').close()")
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("plugins = []", 'plugins = ["mine.py"]'), "utf-8")
    return recipe


def test_code_of_a_stranger_is_refused_until_it_is_trusted(trained: dict[str, Run], tmp_path: Path) -> None:
    recipe = stranger(trained["vae"], tmp_path)
    shelf = Shelf(tmp_path)
    assert shelf.entries()[0].state == "untrusted"
    with pytest.raises(UntrustedError):
        shelf.open("strange")
    assert not (tmp_path / "ran").exists()
    shelf.trust("strange")
    assert shelf.open("strange").generates
    (tmp_path / "strange" / "plugins" / "mine.py").write_text("other = 1")
    os.utime(recipe)
    with pytest.raises(UntrustedError):
        shelf.open("strange")


# -- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_read_on_from_where_they_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def line(step: int, **more: Any) -> str:
        return (
            json.dumps({"step": step, "epoch": 0.1, "images": step, "seconds": 1.0, "g/loss": step / 2, **more}) + "\n"
        )

    path.write_text(
        line(1, roles={"g/loss": "loss"}) + "damaged\n" + line(2) + '{"step": 3, "epoch": 0.1, "seconds": 1, "g/l'
    )
    curves = Curves(path)
    curves.read()
    assert curves.curve("g/loss") == [[1, 0.5], [2, 1.0]]
    assert curves.names("loss") == ["g/loss"]
    with path.open("a") as file:
        file.write('oss": 1.5}\n' + line(4))
    curves.read()
    assert curves.curve("g/loss") == [[1, 0.5], [2, 1.0], [3, 1.5], [4, 2.0]]
    path.unlink()
    path.write_text(line(1))
    curves.read()
    assert curves.curve("g/loss") == [[1, 0.5]]
    path.write_text(line(5) + line(6))
    curves.read()
    assert curves.curve("g/loss") == [[5, 2.5], [6, 3.0]], "another run's, with the same inode and longer"


def test_thinned_curves_keep_their_peaks() -> None:
    values = np.sin(np.arange(100_000) / 500)
    values[54_321] = 9.0
    kept = thinned(values, 600)
    assert len(kept) <= 602 and 54_321 in kept
    assert kept[0] == 0 and kept[-1] == 99_999


@pytest.mark.slow
def test_a_journal_of_100_000_lines_is_read_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with path.open("w") as file:
        for step in range(100_000):
            numbers = {f"d/term{k}": 0.5 for k in range(8)}
            counters = {"step": step, "epoch": step / 100, "images": step, "seconds": step * 0.1}
            file.write(json.dumps(counters | numbers) + "\n")
    curves = Curves(path)
    start = time.perf_counter()
    curves.read()
    assert time.perf_counter() - start < 15
    start = time.perf_counter()
    curves.read()
    assert len(curves.curve("d/term0")) <= 602
    assert time.perf_counter() - start < 0.5


# -- explore ---------------------------------------------------------------------------------------------------------


def explorer_of(run: Run) -> Explorer:
    explorer = Explorer(run)
    for _ in explorer.sampling():
        pass
    for _ in explorer.encoding() if run.encodes else ():
        pass
    return explorer


def test_pictures_are_those_of_the_run(shelf: Shelf) -> None:
    run = shelf.open("pretrained-digits-cgan")
    explorer = Explorer(run)
    latents, condition = run.latents(3), run.in_turn(3)
    assert condition is not None
    content = np.concatenate([latents, condition], axis=1).astype("<f4").tobytes()
    header, pictures = answered(explorer, {"do": "live"}, content)
    expected = np.round(run.decode(latents, condition) * 255).astype(np.uint8)
    assert header == {}
    assert np.abs(np.frombuffer(pictures, np.uint8).reshape(expected.shape).astype(int) - expected).max() <= 1


def test_options_of_one_page_are_not_those_of_another(shelf: Shelf) -> None:
    explorer = Explorer(Run(unpack("digits-flow", shelf.runs)))
    condition = explorer.run.in_turn(1)
    assert condition is not None
    content = np.concatenate([explorer.run.latents(1), condition], axis=1).astype("<f4").tobytes()
    usual = answered(explorer, {"do": "live"}, content)
    assert answered(explorer, {"do": "live", "options": {"solver_steps": 1}}, content) != usual
    assert answered(explorer, {"do": "live"}, content) == usual
    with pytest.raises(UserError):
        answered(explorer, {"do": "live", "options": {"solver_steps": -1}}, content)
    assert answered(explorer, {"do": "live"}, content) == usual


def test_a_request_that_lacks_something_is_told(shelf: Shelf) -> None:
    explorer = Explorer(shelf.open("pretrained-digits-cgan"))
    with pytest.raises(UserError, match="The request lacks the field 'seed'"):
        answered(explorer, {"do": "latents", "count": 2}, b"")
    with pytest.raises(UserError, match="A map needs two directions of"):
        answered(explorer, {"do": "map"}, b"")


def test_a_point_of_the_map_is_its_image(shelf: Shelf) -> None:
    explorer = explorer_of(shelf.open("pretrained-digits-vae"))
    header, content = answered(explorer, {"do": "point", "index": 3}, b"")
    assert header["name"] == explorer.run.dataset.names[explorer.points.indices[3]]
    assert np.array_equal(np.frombuffer(content[:8], "<f4"), explorer.points.latents[3])
    image = explorer.run.images(explorer.points.indices[3:4])
    assert np.array_equal(np.frombuffer(content[8:], np.uint8), np.round(image.ravel() * 255))
    with pytest.raises(UserError, match="no such point"):
        answered(explorer, {"do": "point", "index": 10**6}, b"")


def test_a_map_places_encoded_images_on_the_axes(shelf: Shelf) -> None:
    explorer = explorer_of(shelf.open("pretrained-digits-vae"))
    header, content = answered(explorer, {"do": "map"}, np.eye(2, dtype="<f4").tobytes())
    count = header["count"]
    places = np.frombuffer(content[: 8 * count], "<f4").reshape(count, 2)
    labels = np.frombuffer(content[8 * count :], "<u2")
    assert np.allclose(places, explorer.points.latents)
    assert labels.max() == 9 and len(labels) == count == len(explorer.points.indices)
    assert np.array_equal(labels, explorer.run.labels(explorer.points.indices))


def test_the_direction_of_a_class_leads_to_it(shelf: Shelf) -> None:
    explorer = explorer_of(shelf.open("pretrained-digits-vae"))
    names = [direction.name for direction in explorer.directions()]
    assert names[:2] == ["strongest 1", "strongest 2"] and {"component 1", "7"} <= set(names)
    seven = explorer.directions()[names.index("7")].vector
    is_seven = explorer.points.labels == 7
    latents = explorer.points.latents
    assert np.allclose(seven, latents[is_seven].mean(axis=0) - latents[~is_seven].mean(axis=0))


def test_strongest_directions_are_those_of_a_linear_generator() -> None:
    random = np.random.default_rng(0)
    latents = random.normal(size=(4000, 6))
    turn, _ = np.linalg.qr(random.normal(size=(6, 6)))
    pixels = latents @ turn @ np.diag([9, 3, 1, 0.1, 0.1, 0.1]) @ random.normal(size=(6, 40))
    found = strongest(pixels, latents, None)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    change = [np.linalg.norm((v @ turn) * [9, 3, 1, 0.1, 0.1, 0.1]) for v in found]
    assert change[0] > 7 and change[0] > 2 * change[2]


def test_principal_components_of_a_flat_cloud() -> None:
    cloud = np.random.default_rng(0).normal(size=(5000, 3)) * [5, 2, 0.01]
    axes, spread = principal(cloud, 2)
    assert np.allclose(np.abs(axes), [[1, 0, 0], [0, 1, 0]], atol=0.05) and np.allclose(spread, [5, 2], rtol=0.1)


def test_a_photograph_s_latent_is_searched_where_nothing_encodes(shelf: Shelf, tmp_path: Path) -> None:
    explorer = Explorer(shelf.open("pretrained-digits-cgan"))
    seven = np.float32([number == 7 for number in range(10)])
    target = explorer.pictures(np.concatenate([explorer.run.latents(1, 3)[0], seven]), {})[0]
    Image.fromarray(target.squeeze(-1)).save(tmp_path / "seven.png")
    content = (tmp_path / "seven.png").read_bytes()
    for _ in explorer.projecting(content, seven):
        pass
    image, latent = explorer.photograph(content, seven)
    np.testing.assert_array_equal(image[0], target)
    made = explorer.pictures(np.concatenate([latent, seven]), {})[0]
    assert np.abs(made.astype(float) - target).mean() < 20, "its own samples are found again, nearly"
    assert explorer.describe()["projects"] and not Explorer(find_run("pretrained/digits-flow", tmp_path)).projects
    with pytest.raises(UserError, match="not an image"):
        next(explorer.projecting(b"rubbish", seven))


def test_a_photograph_becomes_a_latent_and_rubbish_a_sentence(shelf: Shelf, tmp_path: Path) -> None:
    explorer = Explorer(shelf.open("pretrained-digits-vae"))
    Image.new("RGB", (300, 200), "white").save(tmp_path / "a.png")
    image, latent = explorer.photograph((tmp_path / "a.png").read_bytes(), None)
    assert image.shape == (1, 16, 16, 1) and image.min() == 255 and latent.shape == (2,)
    with pytest.raises(UserError, match="not an image"):
        explorer.photograph(b"<svg onload=alert(1)>", None)
    with pytest.raises(UserError, match="larger than"):
        explorer.photograph(bytes(13 * 2**20), None)


def test_a_discriminator_gives_shares(trained: dict[str, Run]) -> None:
    explorer = Explorer(trained["gan"])
    for _ in explorer.scoring():
        pass
    shares = explorer.judged(trained["gan"].latents(1).ravel(), {})
    assert 0 <= shares["real"] <= 1 and 0 <= shares["made"] <= 1
    real, _ = trained["gan"].test_images(100)
    scores = explorer._realness(np.concatenate([real, np.random.default_rng(0).random(real.shape, np.float32)]), None)
    assert scores.shape == (200,) and scores[:100].mean() != scores[100:].mean()
    with pytest.raises(UserError, match="no discriminator"):
        next(Explorer(trained["vae"]).scoring())


WRONG = [np.zeros(5), np.array([np.nan, 1]), np.full(2, 1e30), np.zeros(2000)]


@pytest.mark.parametrize("content", [b"", b"123", *(numbers.astype("<f4").tobytes() for numbers in WRONG)])
def test_wrong_numbers_are_refused(shelf: Shelf, content: bytes) -> None:
    with pytest.raises((UserError, ValueError)):
        answered(Explorer(shelf.open("pretrained-digits-vae")), {"do": "live"}, content)


def test_a_film_and_the_latents_can_be_kept(shelf: Shelf, tmp_path: Path) -> None:
    from PIL import Image

    run = shelf.open("pretrained-digits-vae")
    content = run.latents(4).astype("<f4").tobytes()
    for kind in ("gif", "webp"):
        (tmp_path / "film").write_bytes(answered(Explorer(run), {"do": "film", "kind": kind}, content)[1])
        with Image.open(tmp_path / "film") as film:
            assert film.format == kind.upper() and film.n_frames == 6 and film.size == (256, 256)  # there and back
    pytest.importorskip("imageio_ffmpeg")
    assert answered(Explorer(run), {"do": "film", "kind": "mp4"}, content)[1][4:8] == b"ftyp"
    with pytest.raises(UserError, match=r"the name of a film ends in one of \.gif, \.webp, \.mp4"):
        answered(Explorer(run), {"do": "film", "kind": "../x"}, content)
    (tmp_path / "latents.npz").write_bytes(answered(Explorer(run), {"do": "archive"}, content)[1])
    assert np.array_equal(np.load(tmp_path / "latents.npz")["latents"], run.latents(4))


def test_of_many_live_requests_only_the_newest_waits(shelf: Shelf) -> None:
    from fastapi import FastAPI

    from zeuxis.studio import frames
    from zeuxis.studio.state import LIVE, Studio

    studio = Studio(shelf.runs)
    app = FastAPI()
    frames.register(app, studio)
    with TestClient(app) as client, client.websocket_connect("/socket/explore/pretrained-digits-vae") as socket:
        socket.send_bytes(pack({"id": 0, "do": "describe"}))
        assert unpacked(socket.receive_bytes())[0]["latent"] == 2
        asyncio.run(_occupied(studio, LIVE, 0.0))
        blocked = studio.models._queue
        blocked.put((LIVE, -1, lambda: time.sleep(0.5)))
        for number in range(1, 51):
            socket.send_bytes(pack({"id": number, "do": "live"}, np.zeros(2, "<f4").tobytes()))
        answers = [unpacked(socket.receive_bytes())[0]["id"]]
        while answers[-1] != 50:
            answers.append(unpacked(socket.receive_bytes())[0]["id"])
    assert len(answers) <= 3, answers


async def _occupied(studio: Any, urgency: int, seconds: float) -> None:
    await studio.models.do(urgency, time.sleep, seconds)


def test_a_job_outlives_the_studio_and_is_found_again(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("data", "", ["recipes", "digits-vae"])
    jobs._children[job.id].wait(60)
    again = Jobs(tmp_path)
    assert again.all() == [job]
    assert not again.alive(job) and "digits-vae" in again.output(job) and not again.failure(job)
    failed = jobs.start("train", "x", ["train", "no-such-recipe"])
    jobs._children[failed.id].wait(60)
    assert "no-such-recipe" in again.failure(failed)
    assert again.of("x") == failed
    again.forget(failed)
    assert again.all() == [job]


# -- pages, by NiceGUI's simulated user ------------------------------------------------------------------------------


def simulated(runs: Path, visit: Callable[[User], Awaitable[None]]) -> None:
    """Lets a simulated user visit the pages of a studio."""

    async def go() -> None:
        async with user_simulation(main_file=Path(__file__).parent / "studio_main.py") as user:
            await visit(user)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEUXIS_RUNS", str(runs))
        asyncio.run(go())


def test_every_page_is_drawn(shelf: Shelf) -> None:
    async def visit(user: User) -> None:
        for page, words in (
            ("/", "2 runs in"), ("/train", "Let Zeuxis choose"), ("/explore", "Choose a model"),
            ("/blind", "Can you tell"), ("/compare", "Tick two runs"), ("/run/pretrained-digits-vae", "Losses"),
            ("/run/no-such-run", "There is no run 'no-such-run'."),
            ("/compare?runs=..&runs=%2fetc", "There is no run"),
        ):  # fmt: skip
            await user.open(page)
            await user.should_see(words, retries=40)

    simulated(shelf.runs, visit)


def test_a_page_shows_a_folder_of_no_runs(tmp_path: Path) -> None:
    async def visit(user: User) -> None:
        await user.open("/")
        await user.should_see("No runs yet", retries=40)
        await user.should_see("Pretrained, to try at once")

    simulated(tmp_path / "empty", visit)


def test_code_of_a_stranger_is_asked_about_on_the_page(trained: dict[str, Run], tmp_path: Path) -> None:
    stranger(trained["vae"], tmp_path)

    async def visit(user: User) -> None:
        await user.open("/explore/strange")
        await user.should_see("This run would run code", retries=40)
        assert not (tmp_path / "ran").exists()
        user.find("I trust its source: run it").click()
        await asyncio.sleep(0.5)
        assert (tmp_path / "ran").exists()

    simulated(tmp_path, visit)


def many(runs: Path, count: int) -> None:
    """Makes many runs of one: its recipe, its journal, its samples."""
    for number in range(count):
        folder = runs / f"many-{number:04d}"
        folder.mkdir()
        for file in ("recipe.toml", "environment.json", "journal.jsonl", "evaluation.json"):
            (folder / file).hardlink_to(runs / "pretrained-digits-vae" / file)


@pytest.mark.slow
def test_a_thousand_runs_are_listed_and_then_looked_at_quickly(shelf: Shelf) -> None:
    many(shelf.runs, 1000)
    start = time.perf_counter()
    assert len(shelf.entries()) == 1002
    assert time.perf_counter() - start < 60
    start = time.perf_counter()
    assert len(shelf.entries()) == 1002
    assert time.perf_counter() - start < 1.5
