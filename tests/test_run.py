"""What a run can be asked for, its figures and its reports."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zeuxis
from zeuxis.errors import UserError
from zeuxis.evaluation import cost, mean_squared_error
from zeuxis.figures import draw_all, sheet
from zeuxis.figures.export import save_images
from zeuxis.figures.history import chosen_rows
from zeuxis.figures.losses import smooth
from zeuxis.report import run_report
from zeuxis.run import Run, find_run, slerp


def test_samples_are_images_and_follow_the_seed(trained: dict[str, Run]) -> None:
    for run in trained.values():
        images = run.sample(5, seed=3)
        assert images.shape == (5, 16, 16, 1)
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        assert np.array_equal(images, run.sample(5, seed=3))
        assert not np.array_equal(images, run.sample(5, seed=4))


def test_scale_widens_the_latents(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    assert np.allclose(run.sample(4, scale=1.5), run.decode(run.latents(4) * 1.5), atol=1e-6)


def test_labels_are_names(trained: dict[str, Run]) -> None:
    run = trained["cgan"]
    latents = run.latents(3)
    expected = run.decode(latents, run.condition_of(["7"] * 3))
    assert np.array_equal(run.sample(3, label=7), expected)
    assert np.array_equal(run.sample(3, label="7"), expected)


def test_encoding_takes_bytes_and_floats(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    images, labels = run.test_images(20)
    assert labels is not None
    as_bytes = np.round(images * 255).astype(np.uint8)
    assert np.allclose(run.encode(images), run.encode(as_bytes), atol=1e-3)
    assert np.allclose(run.encode(images[..., 0]), run.encode(images)), "grey images may come without a channel"
    assert run.reconstruct(images).shape == images.shape
    with pytest.raises(UserError, match=re.escape("this run takes (H, W, C) = (16, 16, 1)")):
        run.encode(np.zeros((2, 8, 8, 1)))


def test_images_of_the_same_name_do_not_hide_a_run(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained["vae"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / run.name).mkdir()
    assert find_run(run.name, run.path.parent).path == run.path
    with pytest.raises(UserError, match="is not a run: it has no recipe"):
        find_run(run.name, tmp_path / "none")


def test_a_grid_of_small_images_is_enlarged(tmp_path: Path) -> None:
    grid = save_images(np.zeros((4, 28, 28, 1)), tmp_path / "made", columns=2)
    with Image.open(grid) as image, Image.open(tmp_path / "made" / "0000.png") as one:
        assert image.size == (2 * 84 + 3, 2 * 84 + 3) and one.size == (28, 28)


def test_the_test_mse_is_the_one_in_the_journal(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    images, _ = run.test_images()
    recorded = [line["test/mse"] for line in run.journal if line["step"] == run.step]
    assert mean_squared_error(images, run.reconstruct(images)) == pytest.approx(recorded[0], rel=1e-4)


def test_interpolations_begin_and_end_where_they_should(trained: dict[str, Run]) -> None:
    gan, cgan, vae = trained["gan"], trained["cgan"], trained["vae"]
    row = gan.interpolate("4", "9", steps=6)
    assert np.allclose(row[0], gan.sample(1, seed=4)[0], atol=1e-5)
    assert np.allclose(row[-1], gan.sample(1, seed=9)[0], atol=1e-5)
    row = cgan.interpolate("1", "8", steps=4, seed=2)
    assert np.allclose(row[0], cgan.sample(1, seed=2, label="1")[0], atol=1e-5)
    assert np.allclose(row[-1], cgan.sample(1, seed=2, label="8")[0], atol=1e-5)
    row = vae.interpolate("0,0", "1.5,-1", steps=3)
    assert np.allclose(row[1], vae.decode(np.array([[0.75, -0.5]]))[0], atol=1e-5)


def test_a_latent_of_one_number_is_a_number_with_a_point(tmp_path: Path) -> None:
    run = zeuxis.train("digits-vae", steps=1, settings={"model.latent": 1}, runs=tmp_path, progress=False)
    ends = run.interpolate("0.5", "-1.0", steps=2)
    np.testing.assert_allclose(ends, run.decode(np.array([[0.5], [-1.0]], np.float32)), atol=1e-5)
    with pytest.raises(UserError, match="give a seed such as 3, or a number with a point"):
        run.interpolate("half", "1")


def test_spherical_interpolation_keeps_the_norm() -> None:
    a, b = np.zeros(10, np.float32), np.zeros(10, np.float32)
    a[0], b[1] = 3, 3
    assert np.allclose(slerp(a, b, 0.5), (a + b) / np.sqrt(2))
    assert np.allclose(slerp(a, a, 0.3), a)


def test_cost_agrees_with_the_journal(trained: dict[str, Run]) -> None:
    run = trained["gan"]
    last, figures = run.journal[-1], cost(run)
    assert (figures.steps, figures.images, figures.seconds) == (last["step"], last["images"], last["seconds"])
    assert figures.images_per_second == pytest.approx(last["images"] / last["seconds"])
    assert figures.parameters == sum(t["total"] for t in run.summary["networks"].values())
    assert figures.peak_memory_mib > 50
    assert figures.sample_ms > 0


EXPECTED = {
    "vae": {
        "architecture",
        "losses",
        "gradients",
        "history",
        "samples",
        "interpolations",
        "reconstructions",
        "manifold",
        "latents",
        "prior",
        "scales",
        "neighbours",
        "suspects",
        "jumps",
        "directions",
    },
    "gan": {
        "architecture",
        "losses",
        "gradients",
        "history",
        "samples",
        "interpolations",
        "accuracy",
        "scales",
        "neighbours",
        "suspects",
        "jumps",
        "directions",
    },
    "cgan": {
        "architecture",
        "losses",
        "gradients",
        "history",
        "samples",
        "interpolations",
        "accuracy",
        "classes",
        "scales",
        "neighbours",
        "suspects",
        "jumps",
        "directions",
    },
}


@pytest.mark.parametrize("model", list(EXPECTED))
def test_all_figures_that_apply_are_drawn(model: str, trained: dict[str, Run]) -> None:
    drawn = draw_all(trained[model], progress=False)
    assert set(drawn) == EXPECTED[model]
    for path in drawn.values():
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 150
        assert pixels.std() > 5, f"{path.name} is not empty"


def test_more_latents_are_laid_out_by_tsne(tmp_path: Path) -> None:
    run = zeuxis.train("digits-vae", steps=5, settings={"model.latent": 5}, runs=tmp_path, progress=False)
    drawn = draw_all(run, progress=False)
    assert "latents" in drawn
    assert "manifold" not in drawn


def test_smoothing_is_the_mean_with_five_on_each_side() -> None:
    values = np.random.default_rng(0).normal(size=40)
    expected = [values[max(i - 5, 0) : i + 6].mean() for i in range(40)]
    assert np.allclose(smooth(values), expected)


@pytest.mark.parametrize("count", [2, 8, 9, 10, 11, 30, 500])
def test_history_shows_first_last_and_no_snapshot_twice(count: int) -> None:
    rows = chosen_rows(count)
    assert rows[0] == 0
    assert rows[-1] == count - 1
    assert rows == sorted(set(rows))
    assert len(rows) == min(count, 9)


def test_a_sheet_puts_images_in_rows() -> None:
    images = np.stack([np.full((2, 3, 1), value, np.uint8) for value in (10, 20, 30)])
    laid = sheet(images, 2, gap=1)
    assert laid.shape == (5, 7, 3)
    assert (laid[:2, :3] == 10).all()
    assert (laid[:2, 4:] == 20).all()
    assert (laid[3:, :3] == 30).all()
    assert (laid[2] == 255).all()


class Links(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name == "src" or (name == "href" and tag == "link")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Links:
    page = Links()
    page.feed(path.read_text("utf-8"))
    return page


def test_a_report_is_one_self_contained_file(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    page = read(run_report(run))
    assert len(page.sources) >= 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe"}
    last = run.journal[-1]
    assert f"{last['images']:,} images in {last['step']:,} steps" in page.text
    for table in run.summary["networks"].values():
        assert f"{table['total']:,}" in page.text


@pytest.mark.slow
def test_a_comparison_puts_runs_side_by_side(trained: dict[str, Run], tmp_path: Path) -> None:
    path = zeuxis.compare(trained.values(), out=tmp_path / "c.html", samples=200).path
    page = read(path)
    for run in trained.values():
        assert run.recipe.name in page.text
        assert f"{run.journal[-1]['step']:,}" in page.text
    assert sum(source.startswith("data:image/png") for source in page.sources) == 2 + sum(map(len, EXPECTED.values()))
    assert "by digits-cnn" in page.text and "Welch's t test" in page.text
    assert "not trained on the same images" not in page.text


@pytest.mark.usefixtures("short_reports")
def test_a_comparison_says_when_data_differs(trained: dict[str, Run], tmp_path: Path) -> None:
    other = zeuxis.train("digits-gan", steps=3, settings={"data.classes": ["3", "8"]}, runs=tmp_path, progress=False)
    page = read(zeuxis.compare([trained["gan"], other], out=tmp_path / "c.html", samples=200).path)
    assert "not trained on the same images" in page.text
    with pytest.raises(UserError, match="named twice"):
        zeuxis.compare([other, other])


def test_a_run_copied_without_its_data_still_shows_the_rest(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained["vae"].path, copy)
    text = (copy / "recipe.toml").read_text().replace('source = "digits"', 'source = "folder"')
    (copy / "recipe.toml").write_text(text.replace('path = ""', f'path = "{tmp_path / "gone"}"'))
    drawn = draw_all(Run(copy), progress=False)
    assert set(drawn) == EXPECTED["vae"] - {
        "directions",
        "latents",
        "neighbours",
        "prior",
        "reconstructions",
        "suspects",
    }
    assert "left out" in capsys.readouterr().err


def test_environment_is_plain_json(trained: dict[str, Run]) -> None:
    environment = json.loads((trained["cgan"].path / "environment.json").read_text())
    assert environment["data"]["classes"] == [str(i) for i in range(10)]
    assert environment["data"]["train_images"] + environment["data"]["test_images"] == 1797


def test_a_report_escapes_all_that_a_run_says(trained: dict[str, Run], tmp_path: Path) -> None:
    """A run from elsewhere may hold anything: none of it becomes markup on the page."""

    def image(name: str) -> str:
        return f"<img src=x onerror={name}>"

    folder = shutil.copytree(trained["cgan"].path, tmp_path / image("run"))
    recipe = (folder / "recipe.toml").read_text("utf-8")
    named = re.sub(r'^(name|description|origin) = ".*"$', rf'\1 = "{image("recipe")}"', recipe, count=3, flags=re.M)
    (folder / "recipe.toml").write_text(named, "utf-8")
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    environment |= {"processor": image("processor"), "python": image("python"), "versions": {image("v"): image("v")}}
    environment["data"] |= {"sizes": image("sizes"), "classes": [image(f"class{i}") for i in range(10)]}
    (folder / "environment.json").write_text(json.dumps(environment), "utf-8")
    warning = {"step": 1, "epoch": 0.1, "warning": image("warning")}
    (folder / "warnings.jsonl").write_text(json.dumps(warning) + "\n", "utf-8")
    value = {"value": 1.0, "stderr": 0.1, "n": 100, "features": image("features"), "at_least": False}
    evaluation = {
        "run": image("run"),
        "step": Run(folder).step,
        "features": image("features"),
        "samples": 100,
        "seed": 0,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation | {"measures": {"fid": value}}), "utf-8")
    page = run_report(Run(folder)).read_text("utf-8")
    for name in ("run", "recipe", "processor", "python", "v", "sizes", "warning", "features"):
        assert f"&lt;img src=x onerror={name}&gt;" in page, name
    assert "<img src=x" not in page
