"""What a conditional model is given: classes, several attributes at once, numbers."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import zeuxis
from zeuxis import cli
from zeuxis.data import Batch, combinations, load
from zeuxis.errors import UserError
from zeuxis.evaluation.evaluate import applicable, evaluate
from zeuxis.evaluation.judge import RandomFeatures
from zeuxis.figures import draw_all
from zeuxis.models import Iteration, build_model
from zeuxis.models.conditions import of_attributes, of_classes, of_numbers, of_two
from zeuxis.recipe import DataOptions, load_recipe
from zeuxis.run import Run

RECIPE = """
[data]
source = "celeba"
size = 8
channels = 1
convert = true
attribute = "Top,Bottom"
[model]
name = "cvae"
latent = 2
reconstruction = "mse"
kl_weight = 0.05
[networks.encoder]
layers = ["flatten", "dense 32", "relu", "dense 4"]
[networks.decoder]
layers = ["dense 32", "relu", "dense 64", "sigmoid", "reshape 1x8x8"]
[training]
steps = 400
batch_size = 32
test_every = "never"
optimizer = { learning_rate = 5e-3 }
"""


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in CelebA's own files, whose attributes say which half is bright; none has both, one in three neither."""
    folder = tmp_path_factory.mktemp("data")
    generator, count = np.random.default_rng(0), 240
    (folder / "celeba").mkdir()
    rows = []
    with zipfile.ZipFile(folder / "celeba" / "img_align_celeba.zip", "w") as archive:
        for i in range(count):
            top, bottom = i % 3 == 1, i % 3 == 2
            pixels = generator.integers(0, 60, (16, 16, 3), np.uint8)
            pixels[:8] += 180 * np.uint8(top)
            pixels[8:] += 180 * np.uint8(bottom)
            Image.fromarray(pixels).save(folder / "face.png")
            archive.write(folder / "face.png", f"img_align_celeba/{i:06d}.png")
            rows.append(f"{i:06d}.png {1 if top else -1} {1 if bottom else -1}\n")
    (folder / "celeba" / "list_attr_celeba.txt").write_text(f"{count}\nTop Bottom\n{''.join(rows)}")
    split = "".join(f"{i:06d}.png {2 if i % 5 == 0 else 0}\n" for i in range(count))
    (folder / "celeba" / "list_eval_partition.txt").write_text(split)
    (folder / "halves.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained_on_both(halves: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEUXIS_DATA", str(halves))
        return zeuxis.train(halves / "halves.toml", runs=halves / "runs", name="both", progress=False)


def test_vectors_say_what_a_class_is() -> None:
    assert np.array_equal(of_classes("abc").vectors, np.eye(3))
    assert of_two(["cat", "dog"]).vectors.tolist() == [[0], [1]]
    both = of_attributes(["Smiling", "Male"])
    assert both.classes == ("not Smiling, not Male", "Smiling, not Male", "not Smiling, Male", "Smiling, Male")
    assert both.vectors.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]] and both.parts == ("Smiling", "Male")
    assert both.index("Male=1, Smiling=0") == both.index("Male=1") == both.index("not Smiling, Male") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Smilin=1", "no attribute 'Smilin'. Did you mean 'Smiling'"),
        ("Smiling=2", "The attribute Smiling is 0 or 1"),
        ("Smiling=", "The attribute Smiling is 0 or 1"),
        ("Mail", "no class 'Mail'"),
    ],
)
def test_wrong_words_are_told(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of_attributes(["Smiling", "Male"]).index(text)


def test_data_are_labelled_by_combination(halves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_DATA", str(halves))
    options = DataOptions(source="celeba", size=8, attribute="Top,Bottom", convert=True)
    dataset = load(options, progress=False)
    assert dataset.classes == tuple(combinations(["Top", "Bottom"]))
    assert dataset.labels is not None and dataset.attributes is not None
    assert np.array_equal(dataset.labels, dataset.attributes[:, 0] + 2 * dataset.attributes[:, 1])
    assert not (dataset.labels == 3).any(), "a combination that no image shows is a class all the same"
    with pytest.raises(UserError, match=r"no attribute 'Botom'.*'Bottom'"):
        load(options.model_copy(update={"attribute": "Top,Botom"}), progress=False)
    for wrong in ("Top,Top", "a,b,c,d,e,f,g"):
        with pytest.raises(ValueError, match="at most 6 attributes, each once"):
            DataOptions(source="celeba", attribute=wrong)


def test_a_model_makes_what_the_attributes_say(trained_on_both: Run) -> None:
    run = trained_on_both
    assert run.condition_of(["Top=1,Bottom=0"]).tolist() == [[1, 0]]
    brightness = {
        (top, bottom): run.sample(40, label=f"Top={top},Bottom={bottom}").mean(axis=0)[:, :, 0].reshape(2, -1).mean(1)
        for top in (0, 1) for bottom in (0, 1) if not top or not bottom
    }  # fmt: skip
    for (top, bottom), (above, below) in brightness.items():
        assert (above > 0.5) == bool(top) and (below > 0.5) == bool(bottom)
    assert run.in_turn(5).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]]  # type: ignore[union-attr]


def test_the_command_line_asks_for_attributes(
    trained_on_both: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained_on_both.path.parent)
    monkeypatch.setattr(
        sys, "argv", ["zeuxis", "sample", "both", "-n", "2", "--runs", ".", "--condition", "Top=1,Bottom=0"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    grid = Path(capsys.readouterr().out.strip())
    with Image.open(grid.with_name(grid.name.removesuffix("-grid.png")) / "0000.png") as image:
        pixels = np.asarray(image)
    assert pixels[:4].mean() > pixels[4:].mean() + 60


def test_an_auxiliary_classifier_names_every_attribute_by_itself() -> None:
    recipe = load_recipe("faces-acgan-64", {
        "data.attribute": "Smiling,Male,Young", "networks.discriminator.heads.class": ["dense condition"],
    })  # fmt: skip
    model = build_model(recipe)
    assert model.condition_size == 3 and len(model.class_names) == 8
    assert model.net("generator").input_shape == (recipe.model.options["latent"] + 3,)
    labels = torch.tensor([0, 5, 6])
    step = Iteration(
        torch.zeros(()), torch.Generator(), torch.device("cpu"), 3, lambda: Batch(torch.zeros(3, 3, 64, 64), labels)
    )
    named = torch.randn(3, 3)
    bits = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 1, 1]]).float()
    loss = model._class_loss(step, {"class": named})  # type: ignore[operator]
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(named, bits))
    assert model._agreement(step, {"class": bits * 2 - 1}) == 1  # type: ignore[operator]


# -- numbers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of a bar whose place and brightness stand in a CSV; one has no place."""
    folder = tmp_path_factory.mktemp("bars")
    generator, rows = np.random.default_rng(0), ["file_name,place,light,word"]
    for i in range(300):
        place, light = generator.uniform(10, 50), generator.uniform(0.4, 1)
        pixels = np.zeros((8, 8), np.uint8)
        pixels[:, round((place - 10) / 40 * 7)] = round(255 * light)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'' if i == 7 else place},{light},w{i % 3}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


NUMBERS = {"data.source": "folder", "data.attribute": "", "data.numbers": ["place", "light"], "data.convert": False}


def test_numbers_are_read_and_scaled(bars: Path) -> None:
    dataset = load(DataOptions(source="folder", path=str(bars), size=8, numbers=["place", "light"]), progress=False)
    assert dataset.labels is not None and dataset.labels.shape == (300, 2) and dataset.classes == ()
    assert len(dataset.train) + len(dataset.test) == 299
    assert any("without a value of place, light" in str(note) for note in dataset.notes)
    np.testing.assert_allclose(dataset.labels[dataset.train].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(dataset.labels[dataset.train].std(axis=0), 1, atol=1e-5)
    name, mean, deviation = dataset.scales[0]
    assert name == "place" and 25 < mean < 35 and 9 < deviation < 14


def test_a_model_learns_numbers_and_is_asked_for_others(bars: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "bars.toml"
    recipe.write_text(RECIPE.replace('attribute = "Top,Bottom"', ""), "utf-8")
    run = zeuxis.train(recipe, settings=NUMBERS | {"data.path": str(bars)}, runs=tmp_path, progress=False)
    run = Run(run.path)
    for place in (12.0, 30.0, 48.0):
        image = run.sample(1, label=f"place={place},light=0.9")[0, :, :, 0]
        assert abs(image.mean(axis=0).argmax() - (place - 10) / 40 * 7) <= 1.01
    dark, light = (run.sample(1, label=f"light={light}").max() for light in (0.5, 0.95))
    assert light > 1.2 * dark
    assert run.sample(5).shape == (5, 8, 8, 1) and run.interpolate("place=15", "place=45").shape == (10, 8, 8, 1)
    for text, words in (
        ("plcae=3", r"no number 'plcae'. Did you mean 'place'\?"),
        ("place=far", r"place is a number, as in place=\d.*, not 'far'"),
        ("place=inf", "place is a finite number"),
    ):
        with pytest.raises(UserError, match=words):
            run.sample(1, label=text)


def test_every_figure_and_measure_takes_numbers_for_a_condition(bars: Path, tmp_path: Path) -> None:
    settings = {"data.source": "sprites", "data.numbers": ["across", "down"], "data.classes": [], "data.path": "",
                "data.size": 16, "data.channels": 3, "data.convert": True}  # fmt: skip
    run = zeuxis.train("digits-flow", steps=2, settings=settings | {"model.solver_steps": 1}, runs=tmp_path,
                       progress=False)  # fmt: skip
    figures = draw_all(run)
    assert {"samples", "interpolations"} <= figures.keys() and "classes" not in figures
    assert "label_agreement" not in applicable(run, RandomFeatures((3, 16, 16)))
    measured = evaluate(run, samples=100, judge=RandomFeatures((3, 16, 16)), only=["fid", "parameters"], progress=False)
    assert {"fid", "training_multiply_adds"} <= measured["measures"].keys()


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("digits-cgan", {"data.numbers": ["size"]}, r"These images have no numbers; drop data.numbers = \['size'\]"),
        ("mnist-acgan", {"data.source": "sprites", "data.numbers": ["across"]}, "learns classes, but data.numbers"),
        ("digits-flow", {"data.source": "sprites", "data.numbers": ["acros"]}, "Did you mean 'across'"),
        ("digits-flow", {"data.source": "sprites", "data.numbers": ["across"], "model.coupling": "optimal-transport"},
         "set it to 'independent'"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_named(
    recipe: str, settings: dict[str, object], words: str, tmp_path: Path
) -> None:
    chosen = {"data.convert": True, "data.channels": 1} | settings
    with pytest.raises(UserError, match=words):
        zeuxis.train(recipe, steps=1, settings=chosen, runs=tmp_path, progress=False)


def test_names_with_accents_and_equals_signs_can_be_asked_for() -> None:
    names = ("e\u0301te\u0301", "a=b")
    both = of_attributes(names)
    assert both.classes[both.index("\u00e9t\u00e9=1")] == both.classes[both.index("e\u0301te\u0301=1")]
    assert both.vectors[both.index("a=b=1, \u00e9t\u00e9=0")].tolist() == [0, 1]
    assert all(both.index(name) == i for i, name in enumerate(both.classes)), "each by its own name"
    with pytest.raises(UserError, match="no attribute 'c'"):
        both.index("c=1")
    numbers = of_numbers(names, ((100_000.0, 2.0), (0.0, 1.0)))
    asked = numbers.vectors_of(["\u00e9t\u00e9=100001,a=b=0.5"])
    assert asked.tolist() == [[0.5, 0.5]] and "=100001," in numbers.name_of(asked[0])
