"""Runs on the Hugging Face hub: the card, and upload and download by its own client against a server on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

pytest.importorskip("huggingface_hub", reason="zeuxis[hub] is not installed")
import yaml  # which huggingface_hub brings

from zeuxis.errors import UserError
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.measure import by_name
from zeuxis.export import export
from zeuxis.export.hub import TOLD, card, pull, push
from zeuxis.run import Run

COMMIT, PLACE = "1" * 40, "/{repo_id}/resolve/{revision}/{filename}"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as uploads and downloads ask for; files by repository and path."""

    pages: dict[str, dict[str, bytes]]
    asked: list[str]

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: object, status: int = 200, **headers: str) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != "Bearer hf_test":
            self.answer_json({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
            self.pages.setdefault(name, {})
            self.answer_json({"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name})
        elif path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self.answer_json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif path.endswith("/commit/main"):
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.pages[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            self.answer_json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        else:
            self.answer_json({})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        for name, files in self.pages.items():
            listed = [
                {
                    "type": "file", "path": p, "rfilename": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest(),
                    "blobId": hashlib.sha1(c).hexdigest(),
                }
                for p, c in files.items()
            ]  # fmt: skip
            if path.startswith(f"/api/models/{name}/tree/"):
                return self.answer_json(listed)
            if path == f"/api/models/{name}" or path.startswith(f"/api/models/{name}/revision/"):
                return self.answer_json(
                    {"id": name, "modelId": name, "sha": COMMIT, "private": True, "siblings": listed}
                )
            for file, content in files.items():
                if path.startswith(f"/{name}/resolve/") and path.endswith(f"/{file}"):
                    etag = f'"{hashlib.sha1(content).hexdigest()}"'
                    return self.answer(200, content, ETag=etag, Accept_Ranges="bytes")
        return self.answer_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    handler = type("Handler", (Hub,), {"pages": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    # What it reads when it is imported, which another test may have done.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + PLACE)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield handler
    server.shutdown()
    server.server_close()


def test_the_card_tells_what_is_known(trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["gan"]
    evaluate(run, samples=100, only=["fid"], progress=False)
    export(run, "hub", tmp_path / "hub")
    text = (tmp_path / "hub" / "README.md").read_text("utf-8")
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "zeuxis" and "gan" in header["tags"] and "license" not in header
    assert header["pipeline_tag"] == "unconditional-image-generation"
    assert "pipeline_tag" not in yaml.safe_load(card(trained["cgan"]).split("---")[1])
    assert "their licence: CC BY 4.0" in text and "| fid | " in text and f"seed {run.recipe.training.seed}" in text
    assert (tmp_path / "hub" / "samples.png").stat().st_size > 1000 and "(losses.png)" in text


def test_a_run_goes_up_and_comes_back(hub: type[Hub], trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["vae"]
    address = push(run, "ann/digits-of-mine", token="hf_test")
    assert address.endswith("/ann/digits-of-mine")
    assert {"README.md", "samples.png", "recipe.toml"} <= set(hub.pages["ann/digits-of-mine"])
    hub.pages["ann/digits-of-mine"]["evil.py"] = b"raise SystemExit"
    folder = pull("ann/digits-of-mine", tmp_path / "runs", token="hf_test")
    assert folder == tmp_path / "runs" / "digits-of-mine" and not list(folder.rglob("evil.py"))
    again = Run(folder)
    np.testing.assert_allclose(again.sample(4), run.sample(4), atol=0.02)
    assert again.recipe.name == run.recipe.name and again.step == run.step
    with pytest.raises(UserError, match="exists already"):
        pull("ann/digits-of-mine", tmp_path / "runs", token="hf_test")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits-of-mine"]


def test_what_the_hub_refuses_is_a_sentence(
    hub: type[Hub], trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"The hub cannot do this: .*401"):
        push(trained["vae"], "ann/x", token="hf_wrong")
    with pytest.raises(UserError, match=r"The hub cannot do this"):
        pull("ann/nothing", tmp_path / "runs", token="hf_test")
    with pytest.raises(UserError, match="not a name on the hub"):
        pull("..", tmp_path / "runs")
    with pytest.raises(UserError, match="does not know such a name"):
        push(trained["vae"], "a/b/c", token="hf_test")
    hub.pages["ann/empty"] = {"README.md": b"nothing"}
    with pytest.raises(UserError, match=r"holds no run of Zeuxis: recipe\.toml"):
        pull("ann/empty", tmp_path / "runs", token="hf_test")
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="The hub cannot"):
        pull("ann/nothing", tmp_path / "runs", token="hf_test")


def test_a_run_with_code_of_ones_own_stays(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(trained["vae"].path)
    monkeypatch.setattr(type(run.recipe), "calls", property(lambda self: ["nets.Mine"]))
    with pytest.raises(UserError, match=r"needs Python code of yours \(nets\.Mine\)"):
        export(run, "hub", tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_the_card_asks_for_measures_that_there_are() -> None:
    assert set(TOLD) - {"general_fid_floor", "fid_floor"} <= by_name().keys()
