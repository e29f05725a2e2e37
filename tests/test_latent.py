"""A user's own pictures: read as in training, encoded, reconstructed, projected, edited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.data import load, read_pictures
from zeuxis.data.celeba import cropped
from zeuxis.errors import UserError
from zeuxis.evaluation.judge import find_judge
from zeuxis.figures import draw_all
from zeuxis.latent import attribute_direction, directions, edit, has_directions, project
from zeuxis.latent.projection import OF_EACH, _few_of_each
from zeuxis.models.conditions import of_attributes, of_numbers
from zeuxis.recipe import DataOptions
from zeuxis.run import Run, find_run


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The pretrained conditional GAN."""
    return find_run("pretrained/digits-cgan", tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def cvae(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A conditional VAE after some steps on the digits."""
    folder = tmp_path_factory.mktemp("cvae")
    (folder / "cvae.toml").write_text('extends = "digits-vae"\n[model]\nname = "cvae"\nlatent = 8\n')
    return zeuxis.train(folder / "cvae.toml", steps=200, runs=folder, progress=False)


def picture(path: Path, image: np.ndarray) -> Path:
    """Writes `(H, W, C)` in 0..1 as a PNG."""
    pixels = np.round(image * 255).astype(np.uint8)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


def say(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# -- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {}, {"channels": 1}, {"loading": "batch", "source_size": 12}, {"channels": 4}, {"size": "12x8"},
        {"size": "12x8", "fit": "pad", "background": "#336699"}, {"channels": 4, "fit": "pad"}, {"fit": "stretch"},
        {"size": "12x8", "loading": "batch", "source_size": 24},
    ],
)  # fmt: skip
def test_pictures_are_read_as_the_images_of_training(tmp_path: Path, given: dict[str, object]) -> None:
    (tmp_path / "set").mkdir()
    noise, turned = np.random.default_rng(0), Image.Exif()
    turned[0x0112] = 6
    for i in range(8):
        image = Image.fromarray(noise.integers(0, 255, (40 + i, 30, 4), np.uint8), "RGBA")
        image.save(tmp_path / "set" / f"{i}.png") if i % 2 else image.convert("RGB").save(
            tmp_path / "set" / f"{i}.jpg", exif=turned
        )
    options = DataOptions(
        **({"source": "folder", "path": str(tmp_path / "set"), "size": 8, "channels": 3} | given), convert=True
    )
    dataset = load(options, progress=False)
    images, notes = read_pictures([tmp_path / "set" / name for name in dataset.names], options)
    assert images.shape == (8, *options.shape[1:], options.channels)
    if options.loading == "decode":
        assert np.array_equal(np.round(images * 255), dataset.images)
    else:
        assert np.abs(images.mean(axis=(1, 2)) - dataset.images.mean(axis=(1, 2)) / 255).max() < 0.01
    assert [str(note) for note in notes] == [str(note) for note in dataset.notes]
    assert "8 of 8 images are not square: the middle square is used, such as 0.jpg (46x30)" not in str(notes[0])
    assert any("not square" in str(note) or "not of the shape 12x8" in str(note) for note in notes)


def test_a_source_that_crops_crops_pictures_too(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (218, 178, 3), np.uint8))
    image.save(tmp_path / "face.png")
    middle = cropped(image)
    assert middle.size == (148, 148)
    middle.save(tmp_path / "middle.png")
    celeba, folder = (DataOptions(source=source, size=16, channels=3) for source in ("celeba", "folder"))
    face, notes = read_pictures([tmp_path / "face.png"], celeba)
    assert np.array_equal(face, read_pictures([tmp_path / "middle.png"], folder)[0])
    assert "1 image is not square: the middle, where the face is, is used, such as face.png." in map(str, notes)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("words")
    options = DataOptions(source="digits", size=16)
    with pytest.raises(UserError, match=r"words.png cannot be read: it is not an image in a format"):
        read_pictures([tmp_path / "words.png"], options)
    with pytest.raises(UserError, match=r"gone.png cannot be read: there is no such file"):
        read_pictures([tmp_path / "gone.png"], options)


# -- encoding -----------------------------------------------------------------------------------------


def test_encode_and_reconstruct_own_pictures(trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["vae"]
    paths = [str(picture(tmp_path / f"{i}.png", image)) for i, image in enumerate(run.test_images(2)[0])]
    expected = run.encode(run.test_images(2)[0])
    np.testing.assert_allclose(run.encode_files(paths), expected, atol=1e-5)
    np.testing.assert_allclose(list(json.loads(say("encode", str(run.path), *paths)).values()), expected, atol=1e-5)
    out = tmp_path / "latents.npy"
    assert say("encode", str(run.path), *paths, "--out", str(out)).strip() == str(out)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    said = say("reconstruct", str(run.path), *paths, "--out", str(tmp_path / "again")).splitlines()
    images = run.test_images(2)[0]
    errors = np.square(run.reconstruct(images) - images).mean(axis=(1, 2, 3))
    assert [line.rpartition(" ")[2] for line in said[:2]] == [f"{error:.6f}" for error in errors]
    assert len(list((tmp_path / "again").glob("*.png"))) == 4


def test_the_class_of_a_picture_is_searched_or_asked_for(cvae: Run, trained: dict[str, Run]) -> None:
    images, labels = cvae.test_images(100)
    found = cvae.condition_for(images)
    assert found is not None and labels is not None
    assert (found.argmax(axis=1) == labels).mean() > 0.5, "ten classes"
    sevens = cvae.condition_for(images, "7")
    assert sevens is not None and (sevens.argmax(axis=1) == 7).all()
    assert (
        np.square(cvae.reconstruct(images, found) - images).mean()
        < np.square(cvae.reconstruct(images, sevens) - images).mean()
    )
    with pytest.raises(UserError, match="is not conditional"):
        trained["vae"].condition_for(images, "7")


def test_conditions_have_names() -> None:
    attributes, numbers = of_attributes(["Smiling", "Male"]), of_numbers(["angle", "size"], [(30, 10), (1, 0.5)])
    assert attributes.name_of(attributes.vectors_of(["Smiling=1,Male=0"])[0]) == "Smiling, not Male"
    assert numbers.name_of(numbers.vectors_of(["angle=45,size=1"])[0]) == "angle=45,size=1"


# -- projection ---------------------------------------------------------------------------------------


def test_a_sample_is_found_again(digits: Run) -> None:
    latents, condition = digits.latents(1, seed=99), digits.condition_of(["3"])
    sample = digits.decode(latents, condition)[0]
    found = project(digits, sample, label="3", progress=False)
    assert found.label == "3" and found.features == "digits-cnn"
    assert found.mse < 5e-4 < found.start_mse / 4
    assert found.distance < 0.25 * found.start_distance
    np.testing.assert_allclose(digits.decode(found.latent[None], found.condition[None])[0], found.image, atol=1e-5)


def test_a_held_out_image_comes_nearer_and_its_class_is_found(digits: Run) -> None:
    images, labels = digits.test_images(3)
    assert labels is not None
    right = 0
    for image, label in zip(images, labels, strict=True):
        found = project(digits, image, steps=60, progress=False)
        assert found.mse < 0.5 * found.start_mse and found.distance < found.start_distance
        right += found.label == str(label)
        prior = digits.latents(512, 1)
        assert (found.latent >= prior.min(axis=0) - 1e-4).all() and (found.latent <= prior.max(axis=0) + 1e-4).all()
        assert found.film.shape == (16, *image.shape) and found.film.dtype == np.uint8
    assert right >= 2


def test_a_model_that_encodes_starts_from_its_encoding(cvae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = cvae.test_images(1)[0]
    error = np.square(cvae.reconstruct(image, cvae.condition_for(image)) - image).mean()
    far = 30 + cvae.latents(64)
    monkeypatch.setattr(cvae, "latents", lambda n, seed=1: far[:n])
    found = project(cvae, image[0], starts=64, steps=4, progress=False)
    assert found.start_mse < 1.3 * error


def test_categorical_codes_stay_codes(tmp_path: Path) -> None:
    (tmp_path / "infogan.toml").write_text(
        'extends = "digits-gan"\n[model]\nname = "infogan"\nlatent = 6\ncategorical = [4, 3]\ncontinuous = 1\n'
        '[networks.discriminator]\nlayers = ["conv 8 k3 s2", "lrelu 0.2", "flatten"]\nheads = { real = ["dense 1"] }\n'
        '[networks.q]\nlayers = ["dense 8", "lrelu 0.2"]\n'
    )
    settings = {"training.batch_size": 16}
    run = zeuxis.train(tmp_path / "infogan.toml", steps=2, settings=settings, runs=tmp_path / "runs", progress=False)
    latent = project(run, run.sample(1)[0], starts=64, steps=8, progress=False).latent
    for code in run.codes:
        if code.categorical:
            values = latent[code.start : code.start + code.size]
            np.testing.assert_allclose(np.sort(values), [0] * (code.size - 1) + [1], atol=1e-5)


def test_the_command_writes_latent_pictures_and_a_film(digits: Run, tmp_path: Path) -> None:
    path = picture(tmp_path / "seven.png", digits.sample(1, label="7")[0])
    out = tmp_path / "out"
    said = say("project", str(digits.path), str(path), "--steps", "12", "--starts", "64", "--out", str(out))
    assert f"{path}, " in said and "in features of digits-cnn" in said
    folder = out / "seven"
    assert {p.name for p in folder.iterdir()} == {"projection.png", "search.webp", "latent.npy", "projection.json"}
    with Image.open(folder / "search.webp") as film, Image.open(folder / "projection.png") as shown:
        assert film.n_frames == 4 and film.width > 2 * 192 and shown.width > 3 * 192
    numbers = json.loads((folder / "projection.json").read_text())
    np.testing.assert_allclose(numbers["latent"], np.load(folder / "latent.npy"), atol=1e-6)
    assert numbers["mse"] <= numbers["start_mse"]


def test_mistakes_are_sentences(trained: dict[str, Run], digits: Run, tmp_path: Path) -> None:
    path = str(picture(tmp_path / "x.png", digits.sample(1)[0]))
    for command, words in (
        (["project", str(digits.path), path, "--label", "ten"], "There is no class 'ten'"),
        (["project", str(trained["gan"].path), path, "--label", "1"], "is not conditional"),
        (["encode", str(digits.path), path], "cannot encode images"),
        (["encode", str(trained["vae"].path), path, "--out", "x.txt"], "should end in .npy or .json"),
        (["reconstruct", str(trained["vae"].path), "--label", "1"], "Name pictures, or drop it"),
    ):
        with pytest.raises(UserError, match=words):
            CliRunner().invoke(app, command, catch_exceptions=False)


# -- directions ---------------------------------------------------------------------------------------


def test_directions_of_an_encoder_are_the_components_of_its_latents(trained: dict[str, Run]) -> None:
    from sklearn.decomposition import PCA

    run = trained["vae"]
    found = directions(run)
    components = PCA().fit(run.encode(run.images(run.choose_images("train", 4000))).astype(np.float64))
    np.testing.assert_allclose(found.shares, components.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(
        np.abs(found.vectors),
        np.abs(components.components_ * components.explained_variance_[:, None] ** 0.5),
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("model", ["gan", "cgan"])
def test_directions_of_a_generator_are_the_components_of_its_first_layer(model: str, trained: dict[str, Run]) -> None:
    from sklearn.decomposition import PCA

    run = trained[model]
    found = directions(run)
    layer = next(layer for layer in run.model.net("generator").trunk if hasattr(layer, "weight"))
    outputs: list[np.ndarray] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.flatten(1).numpy()))
    one = None if model == "gan" else np.repeat(run.condition_of(["3"]), 4000, axis=0)
    latents = run.latents(4000)
    run.decode(latents, one)
    hook.remove()
    components = PCA(3).fit(np.concatenate(outputs))
    np.testing.assert_allclose(found.shares[:3], components.explained_variance_ratio_, rtol=0.15)
    assert found.vectors.shape[1] == latents.shape[1]
    # One step changes the layer's outputs by about one deviation of the largest component.
    outputs.clear()
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.flatten(1).numpy()))
    run.decode(np.stack([latents[0], latents[0] + found.vectors[0]]), None if one is None else one[:2])
    hook.remove()
    change = np.linalg.norm(outputs[0][1] - outputs[0][0])
    assert change == pytest.approx(components.explained_variance_[0] ** 0.5, rel=0.15)


def test_a_flow_has_no_directions(tmp_path: Path) -> None:
    flow = find_run("pretrained/digits-flow", tmp_path)
    assert not has_directions(flow)
    with pytest.raises(UserError, match="has no unsupervised directions"):
        directions(flow)


def test_the_direction_of_a_class_leads_to_it(trained: dict[str, Run], tmp_path: Path) -> None:
    vae = find_run("pretrained/digits-vae", tmp_path)
    images, labels = vae.test_images(300)
    assert labels is not None
    latents, direction = vae.encode(images), attribute_direction(vae, "0")
    along = latents @ direction / (direction @ direction)
    assert along[labels == 0].mean() - along[labels != 0].mean() == pytest.approx(1, abs=0.2)
    # A generator without encoder, by the classifier of digits.
    gan, judge = trained["gan"], find_judge_of(trained["gan"])
    likely = judge.classify(gan.sample(4000, seed=2)).mean(axis=0)
    name = judge.classes[int(np.abs(likely - 0.3).argmin())]
    shift = attribute_direction(gan, name)
    moved = [judge.classify(gan.decode(gan.latents(500, 3) + step * shift)).mean(axis=0) for step in (-1, 1)]
    index = judge.classes.index(name)
    assert moved[1][index] > moved[0][index] + 0.1


def find_judge_of(run: Run) -> Run:
    judge = find_judge(run.recipe.data, run.classes, run.environment["data"]["fingerprint"])
    assert isinstance(judge, Run)
    return judge


def test_edits_from_python_and_the_command_line(trained: dict[str, Run], digits: Run, tmp_path: Path) -> None:
    run = trained["vae"]
    images = run.test_images(2)[0]
    paths = [picture(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
    shown, edited = edit(run, images, attributes={"7": 1.0}, along={2: -1.5})
    latents = run.encode(images) + attribute_direction(run, "7") - 1.5 * directions(run).vectors[1]
    np.testing.assert_allclose(edited, run.decode(latents), atol=1e-5)
    np.testing.assert_allclose(shown, run.reconstruct(images), atol=1e-5)
    np.testing.assert_allclose(zeuxis.edit(run, paths, attributes={"7": 1}, along={2: -1.5}), edited, atol=1e-3)
    moves = ["--attribute", "7=+1", "--direction", "2=-1.5"]
    say("edit", str(run.path), *map(str, paths), *moves, "--out", str(tmp_path / "edits"))
    with Image.open(tmp_path / "edits" / "0004.png") as last:
        assert np.abs(np.asarray(last) / 255 - edited[0, ..., 0]).max() < 0.01
    for found in edit(digits, digits.sample(1), along={1: 2}, label="0"):  # projected first
        assert found.shape == (1, 16, 16, 1)
    for command, words in (
        ([str(run.path), str(paths[0])], "needs at least one attribute or direction"),
        ([str(run.path), str(paths[0]), "--attribute", "Smiling"], "should be a name and a number of steps"),
        ([str(run.path), str(paths[0]), "--attribute", "12=1"], "There is no attribute or class '12'"),
        ([str(run.path), str(paths[0]), "--attribute", "7=nan"], "should be from -100 to 100, not nan"),
        ([str(run.path), str(paths[0]), "--direction", "x=1"], "is a whole number from 1 on"),
        ([str(run.path), str(paths[0]), "--direction", "0=1"], "The number of a direction"),
        ([str(digits.path), str(paths[0]), "--attribute", "7=1"], "is given 7 as its condition"),
        ([str(trained["gan"].path), str(paths[0]), "--attribute", "12=1"], "no class of the classifier"),
    ):
        with pytest.raises(UserError, match=words):
            CliRunner().invoke(app, ["edit", *command], catch_exceptions=False)


def test_the_figure_of_directions(trained: dict[str, Run]) -> None:
    for run in trained.values():
        drawn = draw_all(run, only=["directions"], options={"count": 3}, progress=False)
        with Image.open(drawn["directions"]) as image:
            assert image.width > 800


def test_of_many_starts_a_few_of_each_condition_are_kept() -> None:
    order = torch.tensor([5, 3, 0, 1, 4, 2])
    condition = torch.tensor([[1.0], [0], [1], [1], [0], [1]])
    assert _few_of_each(order, condition).tolist() == [5, 3, 1, 4]
    many = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    kinds = (torch.arange(3000) % 3).float()[:, None]
    kept = _few_of_each(many, kinds)
    assert [int((kinds[kept] == kind).sum()) for kind in range(3)] == [OF_EACH] * 3
    first = [place for place in many.tolist() if place % 3 == 1][:OF_EACH]
    assert [place for place in kept.tolist() if place % 3 == 1] == first
