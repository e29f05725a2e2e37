"""The server of a run: what it answers, what it refuses, and its description, against which it is tried at random."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="zeuxis[serve] is not installed")
from fastapi.testclient import TestClient

from zeuxis.errors import UserError
from zeuxis.listening import listen
from zeuxis.run import Run
from zeuxis.serving import MOST_BYTES, MOST_IMAGES, build, serve

TOKEN = "a-secret-of-the-tests"


def client(run: Run) -> TestClient:
    return TestClient(build(run, TOKEN), headers={"Authorization": f"Bearer {TOKEN}"})


def pixels(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray((image.squeeze() * 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def as_bytes(images: np.ndarray) -> np.ndarray:
    return (images[..., 0] * 255).round().astype(np.uint8)


def test_answers_are_what_the_run_makes(trained: dict[str, Run]) -> None:
    run, served = trained["vae"], client(trained["vae"])
    facts = served.get("/").json()
    assert (facts["name"], facts["latent"], facts["size"]) == (run.name, run.latents(1).shape[1], [16, 16, 1])
    found = served.post("/sample", json={"count": 3, "seed": 5}).json()
    np.testing.assert_array_equal([pixels(image) for image in found["images"]], as_bytes(run.sample(3, seed=5)))
    again = served.post("/decode", json={"latents": found["latents"]}).json()
    assert again["images"] == found["images"]
    way = served.post("/interpolate", json={"from": "1", "to": "2", "steps": 4}).json()
    np.testing.assert_array_equal([pixels(i) for i in way["images"]], as_bytes(run.interpolate("1", "2", steps=4)))
    one = served.get("/sample.png", params={"seed": 5})
    assert one.headers["content-type"] == "image/png"
    for query, words in (
        ("lable=7", "no setting of a picture 'lable'. Did you mean 'label'?"),
        ("seed=1&seed=2", "twice"),
    ):
        refused = served.get(f"/sample.png?{query}")
        assert refused.status_code == 400 and words in refused.json()["error"]
    heads = [served.head(path) for path in ("/", "/sample.png")]
    assert all(head.status_code == 200 and not head.content for head in heads)
    images = run.test_images(2)[0]
    files = [("images", (f"{i}.png", png(image), "image/png")) for i, image in enumerate(images)]
    latents = served.post("/encode", files=files).json()["latents"]
    np.testing.assert_allclose(latents, run.encode(images), atol=0.02)


def test_a_conditional_model_is_asked_for_a_class(trained: dict[str, Run]) -> None:
    run, served = trained["cgan"], client(trained["cgan"])
    assert served.get("/").json()["classes"] == list(run.classes)
    found = served.post("/sample", json={"count": 2, "label": "7"}).json()
    np.testing.assert_array_equal([pixels(i) for i in found["images"]], as_bytes(run.sample(2, label="7")))
    wrong = served.post("/sample", json={"label": "eleven"})
    assert wrong.status_code == 400 and "'eleven'" in wrong.json()["error"]
    absent = served.post("/encode", files=[("images", b"")])
    assert absent.status_code == 404 and "the model 'cgan' does not encode images" in absent.json()["error"]
    unknown = served.get("/smaple").json()["error"]
    assert unknown.startswith("There is no address /smaple here. There are /, /decode, /interpolate, /sample,")
    assert served.get("/sample").json() == {"error": "Method Not Allowed."}


def test_what_is_refused(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    served = client(run)
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Bearer ümlaut".encode("latin-1")}):
        refused = TestClient(build(run, TOKEN), headers=headers).post("/sample", json={})  # type: ignore[arg-type]
        assert refused.status_code == 401 and "Authorization: Bearer" in refused.json()["error"]
    for address, body, status, words in (
        ("/sample", {"count": MOST_IMAGES + 1}, 422, "body.count should be less than or equal to 64, not 65."),
        ("/sample", {"count": 1, "colour": "red"}, 422, "body.colour"),
        ("/sample", {"label": "7"}, 400, "takes no label"),
        ("/decode", {"latents": [[0.0]]}, 400, "and number 0 has 1"),
        ("/decode", {"latents": []}, 422, "body.latents"),
        ("/interpolate", {"from": "1", "to": "x"}, 400, "'x' is not a latent"),
    ):
        answer = served.post(address, json=body)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.json()
    assert served.post("/decode", content=b'{"latents": [[NaN, 1e999]]}').status_code == 422
    unread = served.post("/encode", files=[("images", ("a.png", b"no image", "image/png"))])
    assert unread.status_code == 400 and "File 0 is not an image" in unread.json()["error"]
    large = served.post("/encode", files=[("images", ("a.png", bytes(MOST_BYTES + 1), "image/png"))])
    assert large.status_code == 413 and "16 MiB" in large.json()["error"]


def test_the_secret_and_the_port_are_checked_first(trained: dict[str, Run]) -> None:
    with pytest.raises(UserError, match="others in the network can reach the server"):
        serve(trained["vae"], host="0.0.0.0", token="short")
    taken = listen("127.0.0.1", 0, "A test")
    with pytest.raises(UserError, match=r"The server cannot listen on 127\.0\.0\.1"):
        serve(trained["vae"], port=taken.getsockname()[1])
    taken.close()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "cgan"])
def test_requests_at_random_are_answered_as_described(model: str, trained: dict[str, Run]) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_asgi("/openapi.json", build(trained[model], TOKEN))
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=strategy)
        def tried(case: object) -> None:
            response = case.call(headers={"Authorization": f"Bearer {TOKEN}"})  # type: ignore[attr-defined]
            # What is well formed may still ask for a class that the model does not have.
            case.validate_response(response, excluded_checks=[positive_data_acceptance])  # type: ignore[attr-defined]

        tried()


@pytest.mark.slow
def test_the_command_serves(trained: dict[str, Run], tmp_path: Path) -> None:
    import urllib.request

    port = listen("127.0.0.1", 0, "A test")
    number = port.getsockname()[1]
    port.close()
    command = [sys.executable, "-m", "zeuxis", "serve", str(trained["vae"].path), "--port", str(number)]
    with subprocess.Popen([*command, "--token", TOKEN], stderr=subprocess.PIPE, text=True) as process:
        try:
            address = f"http://127.0.0.1:{number}/sample.png?seed=3"
            for _ in range(300):
                try:
                    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
                    with urllib.request.urlopen(asked, timeout=20) as answer:
                        content = answer.read()
                    break
                except OSError:
                    time.sleep(0.2)
            with Image.open(io.BytesIO(content)) as image:
                np.testing.assert_array_equal(np.asarray(image), as_bytes(trained["vae"].sample(1, seed=3))[0])
        finally:
            process.terminate()
