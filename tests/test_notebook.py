"""From Python and in notebooks: what the command line does, and how runs show themselves."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import zeuxis
from zeuxis.errors import UserError
from zeuxis.run import Run


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_a_run_gives_its_figures(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    drawn = run.figure("latents", points=50)
    assert isinstance(drawn, Figure) and "Latent" in drawn.texts[0].get_text()
    with pytest.raises(UserError, match=r"no figure of .* 'latent'\. Did you mean 'latents'"):
        run.figure("latent")
    with pytest.raises(UserError, match="There is no option of these figures 'point'"):
        run.figure("latents", point=50)
    shown = run.show(6, columns=3, seed=2)
    assert isinstance(shown, Figure)
    tiles = np.asarray(shown.axes[0].images[0].get_array())
    assert tiles.std() > 0
    for figure in (drawn, shown):  # what Jupyter asks for where pyplot is not loaded
        assert Image.open(io.BytesIO(figure._repr_png_())).width > 150


def test_a_run_shows_itself_in_a_notebook(trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["gan"]
    page = run._repr_html_()
    assert run.name in page and len(pictures(page)) == 2
    assert all(picture.width > 400 for picture in pictures(page))
    shutil.copytree(run.path, tmp_path / "a<b>")
    shutil.rmtree(tmp_path / "a<b>" / "checkpoints")
    untrained = Run(tmp_path / "a<b>")._repr_html_()
    assert "a&lt;b&gt;" in untrained and len(pictures(untrained)) == 1, "without weights, the losses alone"


def test_measures_show_themselves_in_a_notebook(trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["gan"]
    found = zeuxis.evaluate(run, samples=100, progress=False)
    assert found["measures"]["fid"]["value"] > 0
    assert re.search(r"<td>fid</td><td>[\d.,]+", found._repr_html_())
    few = zeuxis.evaluate(run, samples=100, only=["fid"], judge="random", progress=False)
    assert set(few["measures"]) == {"fid", "fid_infinity"} and few["features"].startswith("random features")
    with pytest.raises(UserError, match=r"cannot judge|no features"):
        zeuxis.evaluate(run, samples=100, only=["fid"], judge=trained["vae"], progress=False)
    zeuxis.evaluate(run, samples=100, only=["fid"], progress=False)
    assert "<td>fid</td>" in run._repr_html_(), "a run that was measured shows its measures"


@pytest.mark.usefixtures("short_reports")
def test_a_comparison_shows_itself_in_a_notebook(trained: dict[str, Run], tmp_path: Path) -> None:
    compared = zeuxis.compare([trained["vae"], trained["gan"]], tmp_path / "c.html", samples=100)
    page = compared._repr_html_()
    assert compared.path.exists() and str(compared.path) in page
    assert "<th>vae</th><th>gan</th>" in page and "FID ↓" in page


def test_runs_are_resumed_and_listed(trained: dict[str, Run], tmp_path: Path) -> None:
    shutil.copytree(trained["vae"].path, tmp_path / "vae")
    before = Run(tmp_path / "vae").step
    steps = before + 3
    changed = {"training.optimizer.learning_rate": 1e-4}
    run = zeuxis.resume(tmp_path / "vae", steps=steps, settings=changed, progress=False)
    assert run.step == steps and run.recipe.training.optimizer.learning_rate == 1e-4
    entry = zeuxis.runs(tmp_path)[0]
    assert (entry.name, entry.state, entry.used) == ("vae", "finished", steps)
    with pytest.raises(UserError, match="cannot change"):
        zeuxis.resume(run, steps=steps + 1, settings={"training.seed": 5}, progress=False)


@pytest.mark.usefixtures("short_reports")
def test_studies_from_python(tmp_path: Path) -> None:
    few = {"training.steps": 5, "training.test_every": "never"}
    swept = zeuxis.sweep(
        "digits-vae", {"model.latent": [2, 3]}, tmp_path / "s", settings=few, samples=100, progress=False
    )
    assert swept.path.exists() and len(swept.table.labels) == 2
    compared = zeuxis.benchmark(["vae", "gan"], "digits", tmp_path / "b", images=300, samples=100, progress=False)
    assert compared.table.labels == ("digits-vae", "digits-gan")


@pytest.mark.slow
def test_a_training_shows_itself_live_in_a_notebook(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    settings = '{"training.snapshot_every": "20 steps", "training.log_every": 5}'
    code = f"import zeuxis\nrun = zeuxis.train('digits-gan', steps=60, settings={settings})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    shown: list[str] = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, cell, index):
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(message["content"]["data"]["text/html"])
            return super().process_message(message, cell, index)

    Client(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(shown) >= 2, "it renews itself"
    page = notebook.cells[0].outputs[0]["data"]["text/html"]
    assert page == shown[-1] and "digits-gan-1" in page and "100%" in page
    assert pictures(page)[0].height >= 100 and page.count("<polyline") == 2 and "discriminator/loss" in page
