"""Data sets that the library `datasets` reads: from files on this machine, and from a hub on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import zeuxis
from zeuxis.data import batches_of, choose, load
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions

datasets = pytest.importorskip("datasets", reason="zeuxis[hf] is not installed")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def picture(i: int, side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def table(first: int, count: int, names: bool = True) -> datasets.Dataset:
    label = datasets.ClassLabel(names=["cat", "dog"]) if names else datasets.Value("string")
    features = datasets.Features({"picture": datasets.Image(), "label": label, "note": datasets.Value("string")})
    rows = [
        {"picture": {"bytes": picture(first + i), "path": None}, "label": i % 2 if names else "dc"[i % 2], "note": "x"}
        for i in range(count)
    ]
    return datasets.Dataset.from_list(rows, features=features)


def options(data: str, **more: object) -> DataOptions:
    chosen = {key.removeprefix("data."): value for key, value in choose(data).items()}
    return DataOptions(**{**chosen, "size": 16, "channels": 3, **more})  # type: ignore[arg-type]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    table(0, 24).to_parquet(tmp_path / "set" / "train.parquet")
    table(100, 6).to_parquet(tmp_path / "set" / "test.parquet")
    return tmp_path / "set"


def test_parquet_files_on_this_machine(parquet: Path) -> None:
    found = load(options(f"hf:{parquet}"), progress=False)
    assert (len(found.train), len(found.test), found.classes) == (24, 6, ("cat", "dog"))
    first = np.asarray(Image.open(io.BytesIO(picture(0))))
    np.testing.assert_array_equal(np.asarray(found.images[int(found.train[0])]), first)
    again = load(options(f"hf:{parquet}"), progress=False)
    assert again.fingerprint == found.fingerprint
    table(200, 24).to_parquet(parquet / "train.parquet")
    assert load(options(f"hf:{parquet}"), progress=False).fingerprint != found.fingerprint


def test_an_image_folder_and_a_column_of_words(tmp_path: Path) -> None:
    for i in range(12):
        place = tmp_path / "pets" / "train" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(picture(i))
    found = load(options(f"hf:{tmp_path / 'pets'}"), progress=False)
    assert found.classes == ("cat", "dog") and len(found.images) == 12
    (tmp_path / "words").mkdir()
    table(0, 10, names=False).to_parquet(tmp_path / "words" / "train.parquet")
    found = load(options(f"hf:{tmp_path / 'words'}"), progress=False)
    assert found.classes == ("c", "d")


def test_a_run_trains_on_it(parquet: Path, tmp_path: Path) -> None:
    run = zeuxis.train(
        "digits-cgan", f"hf:{parquet}", steps=2, runs=tmp_path / "runs", progress=False,
        settings={"data.channels": 3, "training.test_every": "never"},
    )  # fmt: skip
    assert run.classes == ("cat", "dog") and run.sample(1, label="dog").shape == (1, 16, 16, 3)
    assert 'source = "hf"' in (run.path / "recipe.toml").read_text("utf-8")


def test_what_cannot_be_read_is_a_sentence(parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no column of .* 'pictures'\. Did you mean 'picture'"):
        load(options(f"hf:{parquet}", options={"image": "pictures"}), progress=False)
    (tmp_path / "text").mkdir()
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "text" / "train.parquet")
    with pytest.raises(UserError, match=r"has no column of images; its columns are text"):
        load(options(f"hf:{tmp_path / 'text'}"), progress=False)
    with pytest.raises(UserError, match="needs a name"):
        load(options("hf:"), progress=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be read on the hub"):
        load(options("hf:nobody/nothing"), progress=False)


def test_broken_rows_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [{"bytes": picture(i) if i != 3 else b"no image", "path": None} for i in range(10)]
    features = datasets.Features({"image": datasets.Image()})
    made = datasets.Dataset.from_list([{"image": row} for row in rows], features=features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    found = load(options(f"hf:{tmp_path / 'set'}"), progress=False)
    assert len(found.images) == 9 and list(found.left_out) == ["train/3"]


def test_a_stream_gives_what_the_whole_gives(parquet: Path, tmp_path: Path) -> None:
    for i in range(12):
        place = tmp_path / "pets" / "train" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(picture(i))
    for folder, test in ((parquet, 6), (tmp_path / "pets", None)):
        whole = load(options(f"hf:{folder}"), progress=False)
        chosen = options(f"hf:{folder}", options={"streaming": True, "buffer": 8})
        found = load(chosen, progress=False)
        assert found.classes == whole.classes and found.stream is not None
        assert found.train_count + len(found.test) == len(whole.images) and test in (len(found.test), None)
        batches = batches_of(found, chosen, 4, 0, torch.device("cpu"))
        trained = [batches[k] for k in range(batches.per_epoch)]
        batches.close()
        pixels = np.concatenate([(b.images.permute(0, 2, 3, 1) * 255).round().byte().numpy() for b in trained])
        labels = np.concatenate([b.labels.numpy() for b in trained])
        known = {image.tobytes(): int(whole.labels[i]) for i, image in enumerate(whole.images)}
        assert [known[image.tobytes()] for image in pixels] == labels.tolist()
        assert len({image.tobytes() for image in pixels}) == len(pixels)
    with pytest.raises(UserError, match=r"no column of .* 'pictures'\. Did you mean 'picture'"):
        load(options(f"hf:{parquet}", options={"streaming": True, "image": "pictures"}), progress=False)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as a download of a data set asks for."""

    files: dict[str, bytes]
    name, commit = "ann/pets", "2" * 40

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "X-Repo-Commit": self.commit, **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        listed = [self.entry(path) for path in self.files]
        self.answer(200, json.dumps(listed).encode(), Content_Type="application/json")

    def entry(self, path: str) -> dict[str, object]:
        oid = hashlib.sha1(self.files[path]).hexdigest()
        return {
            "type": "file", "path": path, "rfilename": path, "size": len(self.files[path]), "oid": oid, "blobId": oid,
        }  # fmt: skip

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        base = f"/api/datasets/{self.name}"
        if path.startswith(f"{base}/tree/"):
            folder = path.removeprefix(f"{base}/tree/").partition("/")[2]
            listed = [self.entry(p) for p in self.files if p.startswith(folder)]
            self.answer(200, json.dumps(listed).encode(), Content_Type="application/json")
        elif path == base or path.startswith(f"{base}/revision/"):
            info = {"id": self.name, "sha": self.commit, "siblings": [self.entry(p) for p in self.files], "tags": []}
            self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
        elif path.startswith(f"/datasets/{self.name}/resolve/"):
            file = path.removeprefix(f"/datasets/{self.name}/resolve/").partition("/")[2]
            if file in self.files:
                content = self.files[file]
                start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0] or 0)
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(200 if not start else 206, content[start:], ETag=etag, Accept_Ranges="bytes")
            else:
                self.answer(404, b"{}", X_Error_Code="EntryNotFound")
        else:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    handler = type("Handler", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield handler
    server.shutdown()
    server.server_close()


def test_a_data_set_of_a_hub_on_loopback(hub: type[Hub], parquet: Path, tmp_path: Path) -> None:
    hub.files = {
        "train-00000-of-00001.parquet": (parquet / "train.parquet").read_bytes(),
        "test-00000-of-00001.parquet": (parquet / "test.parquet").read_bytes(),
        "README.md": b"---\nlicense: mit\n---\n",
    }
    # In a process of its own, as the library reads its settings when it is imported. It also asks for a host with
    # `datasets-server.` before the hub's name, which no system knows and the guard of these tests would refuse.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "zeuxis", "data", "info", "hf:ann/pets", "--out", str(tmp_path / "sheet.png")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "24" in ended.stdout and "cat" in ended.stdout and "dog" in ended.stdout, ended.stdout


@pytest.mark.slow
def test_a_stream_of_a_hub_on_loopback_leaves_no_copy(hub: type[Hub], tmp_path: Path) -> None:
    files = {}
    for part, count in (("train-0", 20), ("train-1", 20), ("test-0", 6)):
        table(len(files) * 20, count).to_parquet(tmp_path / "part.parquet")
        files[f"{part}.parquet"] = (tmp_path / "part.parquet").read_bytes()
    hub.files = files
    # As above, without the guard of these tests.
    environment = os.environ | {"PYTHONPATH": str(Path(zeuxis.__file__).parents[1])}
    command = [
        sys.executable, "-m", "zeuxis", "train", "digits-cgan", "--data", "hf:ann/pets", "--steps", "3",
        "--set", "data.options.streaming=true", "--set", "data.channels=3", "--set", "training.test_every=never",
        "--name", "run",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
    environment_of_run = json.loads((tmp_path / "runs" / "run" / "environment.json").read_text("utf-8"))
    assert environment_of_run["data"]["train_images"] == 40 and environment_of_run["data"]["classes"] == ["cat", "dog"]
    assert not list((tmp_path / "hf").rglob("*.parquet")) and not list((tmp_path / "hf").rglob("*.arrow"))
