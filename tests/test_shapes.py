"""Images that are not square and images that are transparent, from files to networks, pictures, judges and exports."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import zeuxis
from zeuxis.choosing import choose_recipe
from zeuxis.data import choose, load, on_white
from zeuxis.data.cache import prepare
from zeuxis.errors import UserError
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.judge import MINUTES, RandomFeatures, find_or_train_judge, judged
from zeuxis.export import export
from zeuxis.figures.export import save_samples
from zeuxis.figures.style import CHECKS, on_checks
from zeuxis.models.augmentation import AUGMENTATIONS, augment
from zeuxis.recipe import DataOptions, Size, load_recipe, parse_override
from zeuxis.run import Run
from zeuxis.sizing import resized, velocity_layers
from zeuxis.training import read_tiles, save_tiles

SIDES = st.integers(4, 60)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))


def sprites(folder: Path, count: int = 24, size: tuple[int, int] = (60, 40), opaque: int = 0) -> Path:
    """Discs and boxes on transparent ground, below which files hold random colours; the first are opaque."""
    random = np.random.default_rng(0)
    for i in range(count):
        image = Image.new("RGBA", size, (*random.integers(0, 256, 3).tolist(), 255 if i < opaque else 0))
        x, y = (int(random.integers(0, side - 20)) for side in size)
        draw = ImageDraw.Draw(image)
        colour = (*random.integers(40, 256, 3).tolist(), 255)
        (draw.ellipse if i % 2 else draw.rectangle)((x, y, x + 19, y + 19), fill=colour)
        path = folder / ("disc" if i % 2 else "box") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


# -- sizes as settings ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(width=st.integers(4, 2048), height=st.integers(4, 2048))
def test_a_size_is_a_side_or_width_x_height(width: int, height: int) -> None:
    options = DataOptions(size=f"{width}x{height}", channels=3)
    assert options.size == Size.of(options.size) == (width, height) and options.shape == (3, height, width)
    said = options.model_dump()["size"]
    assert said == (width if width == height else f"{width}x{height}")
    assert DataOptions(size=said).size == options.size and parse_override(f"data.size={said}")[1] == said


@pytest.mark.parametrize("wrong", ["96x", "x64", "3x96", "96x4096", "96x64x3", "wide", 3, 4096, True, 9.5, [96, 64]])
def test_what_is_no_size_is_told_what_is_one(wrong: object) -> None:
    with pytest.raises(UserError, match=r"data\.size: a size should be a side of 4 to 2048 .*'96x64', not .+\."):
        load_recipe("digits-vae", {"data.size": wrong})
    with pytest.raises(UserError, match="A size should be a side of 4 to 2048"):
        resized(load_recipe("digits-vae"), wrong)  # type: ignore[arg-type]


def test_sources_of_squares_stay_square() -> None:
    for source in ("digits", "sprites", "mnist", "fashion-mnist"):
        with pytest.raises(UserError, match=f"'{source}' are square, .* data.size should be one side, such as 16"):
            load(DataOptions(source=source, size="24x16", channels=3, convert=True), progress=False)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["modern-gan-64", "modern-vae-64", "modern-ae-64", "modern-flow-28", "flowers-gan-32-z10"]),
    sides=st.tuples(st.integers(2, 32), st.integers(2, 32)),
)
def test_networks_follow_a_size_or_name_sizes_that_they_follow(name: str, sides: tuple[int, int]) -> None:
    recipe, size = load_recipe(name), Size(8 * sides[0], 8 * sides[1])
    try:
        networks = resized(recipe, size).networks
    except UserError as error:
        (named,) = re.findall(r"the nearest sizes that fit: (.+)\.", str(error))
        for near in named.split(" and "):
            assert str(resized(recipe, near).data.size.setting) == near
        return
    for network in networks.values():
        if name == "modern-flow-28":
            assert network.layers == velocity_layers(size)
        found = [re.fullmatch(r"reshape (\w+)x(\d+)x(\d+)", layer) for layer in network.layers]
        doublings = sum("deconv" in layer and "s2" in layer for layer in network.layers)
        for grid in filter(None, found):
            assert (int(grid[3]) << doublings, int(grid[2]) << doublings) == size


def test_grids_are_as_wide_as_the_images() -> None:
    generator = resized(load_recipe("modern-gan-64"), "96x64").networks["generator"].layers
    assert generator[:2] == ["dense 6144", "reshape 256x4x6"]
    assert generator[2:] == load_recipe("modern-gan-64").networks["generator"].layers[2:]
    back = resized(resized(load_recipe("modern-gan-64"), "96x64"), 64)
    assert back.networks == load_recipe("modern-gan-64").networks and back.name == "modern-gan-64"
    assert resized(load_recipe("modern-ae-64"), "96x64").model.options["latent"] == 768
    assert velocity_layers(Size(24, 16))[0] == "unet 32 d3 h4"
    assert velocity_layers(Size(96, 64))[0] == "conv 64 k8 s4", "patches of 3 pixels do not fit 64"


# -- fitting ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(width=SIDES, height=SIDES, target=st.tuples(SIDES, SIDES), channels=st.sampled_from([1, 3, 4]))
def test_every_image_fits_every_size(width: int, height: int, target: tuple[int, int], channels: int) -> None:
    image = Image.new("RGB", (width, height), "black")
    for fit in ("crop", "pad", "stretch"):
        options = DataOptions(size=Size(*target), channels=channels, fit=fit)
        pixels = np.frombuffer(prepare(image, options).pixels, np.uint8).reshape(target[1], target[0], channels)
        dark = pixels[..., 3] == 255 if channels == 4 else pixels[..., 0] == 0
        if fit != "pad":
            assert dark.all()
            continue
        rows, columns = dark.any(axis=1).sum(), dark.any(axis=0).sum()
        assert dark.sum() == rows * columns and (rows == target[1] or columns == target[0]), "the whole, in one piece"
        assert abs(rows * width - columns * height) <= max(width, height), "in its own shape, to a pixel"
        assert (pixels[~dark] == ([255, 255, 255, 0][:channels] if channels == 4 else 255)).all()


def test_a_crop_takes_the_middle_and_a_stretch_takes_all() -> None:
    image = Image.new("L", (90, 20), 0)
    image.paste(255, (30, 0, 60, 20))  # as wide for its height as 24x16

    def fitted(fit: str) -> np.ndarray:
        options = DataOptions(size="24x16", fit=fit, background="#808080")
        return np.frombuffer(prepare(image, options).pixels, np.uint8).reshape(16, 24)

    assert fitted("crop").min() > 200
    assert fitted("stretch")[:, 10:14].min() > 250 and fitted("stretch")[:, :6].max() < 5
    assert (fitted("pad")[:5] == 128).all() and (fitted("pad")[-5:] == 128).all() and fitted("pad")[7, 2] == 0


def test_what_is_done_is_said(tmp_path: Path) -> None:
    folder = sprites(tmp_path / "set", opaque=3)
    said = {}
    for fit in ("crop", "pad", "stretch"):
        options = DataOptions(source="folder", path=str(folder), size="48x48", channels=4, fit=fit)
        said[fit] = [str(note) for note in load(options, progress=False).notes]
    assert said["crop"][0] == ("24 of 24 images are not square: the middle square is used, such as box/00.png (60x40).")
    assert "not square: the whole is used, on transparent ground, such as" in said["pad"][0]
    assert "not square: the whole is stretched to 48x48, such as" in said["stretch"][0]
    assert said["crop"][1:] == [
        "24 of 24 images are enlarged to 48x48, such as box/00.png (60x40).",
        "3 of 24 images are without transparency, and made opaque, such as box/00.png.",
    ]
    flat = DataOptions(source="folder", path=str(folder), size="60x40", channels=3, background="#FF0000")
    (note,) = load(flat, progress=False).notes
    assert str(note).startswith("21 of 24 images are partly transparent: the background is made #ff0000, such as")


def test_caches_of_squares_keep_their_names(tmp_path: Path) -> None:
    def folders() -> set[str]:
        return {path.name for path in (tmp_path / "cache" / "images").iterdir()}

    load(DataOptions(source="digits", size=8), progress=False)
    key = json.dumps([2, "scikit-learn digits", 8, 1])
    assert folders() == {hashlib.sha256(key.encode()).hexdigest()[:24]}
    load(DataOptions(source="digits", size=8, fit="pad"), progress=False)
    assert len(folders()) == 2


# -- transparency -----------------------------------------------------------------------------------------


def test_colours_that_nobody_sees_are_not_learned(tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    ImageDraw.Draw(image).ellipse((10, 10, 50, 50), fill=(255, 0, 0, 255))
    options = DataOptions(size=16, channels=4, background="#0000ff")
    pixels = np.frombuffer(prepare(image, options).pixels, np.uint8).reshape(16, 16, 4)
    seen = pixels[..., 3] > 0
    assert (
        (pixels[~seen] == (0, 0, 255, 0)).all() and (pixels[seen][:, 1] < 16).all() and (pixels[seen][:, 0] > 239).all()
    )
    edge = seen & (pixels[..., 3] < 255)
    assert edge.any(), "half covered pixels are half transparent"
    ground = np.frombuffer(prepare(image, options.model_copy(update={"channels": 3})).pixels, np.uint8)
    assert (ground.reshape(16, 16, 3)[0, 0] == (0, 0, 255)).all()


def test_arrays_keep_their_transparency() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 16, 24, 4), np.uint8)
    images[..., 3] = np.where(random.random((20, 16, 24)) < 0.5, 0, 255)
    chosen = {key.removeprefix("data."): value for key, value in choose(images).items()}
    dataset = load(DataOptions(**chosen, size="24x16", channels=4), progress=False)
    seen = images[..., 3] > 0
    assert np.array_equal(dataset.images[..., 3], images[..., 3])
    assert np.array_equal(dataset.images[seen], images[seen]) and (dataset.images[~seen] == (255, 255, 255, 0)).all()


def test_transparent_pictures_are_shown_on_checks_and_kept_in_snapshots(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 4), np.uint8)
    images[0, ..., 3], images[1, ..., 3] = 0, 255
    shown = on_checks(images)
    assert set(np.unique(shown[0])) == set(CHECKS) and np.array_equal(shown[1], images[1, ..., :3])
    assert on_checks(shown) is shown
    save_tiles(tmp_path / "tiles.png", images, 3)
    assert np.array_equal(read_tiles(tmp_path / "tiles.png", Size(24, 16))[:5], images)
    with pytest.raises(UserError, match="holds no tiles of 16x24 pixels"):
        read_tiles(tmp_path / "tiles.png", Size(16, 24))


def test_augmentation_of_colours_leaves_transparency() -> None:
    images = torch.rand(6, 4, 8, 12) * 2 - 1
    augmented = augment(images, [AUGMENTATIONS["color"]()], torch.Generator().manual_seed(0))
    torch.testing.assert_close(augmented[:, 3], images[:, 3])
    assert (augmented[:, :3] - images[:, :3]).abs().mean() > 0.1


def test_judges_see_white_behind_transparent_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 4), np.uint8)
    placed = on_white(torch.from_numpy(images).permute(0, 3, 1, 2).double(), 255).permute(0, 2, 3, 1).numpy()
    share = images[..., 3:] / 255
    np.testing.assert_allclose(placed, images[..., :3] * share + 255 * (1 - share))
    images[..., 3] = np.where(images[..., 3] > 127, 255, 0)
    flat = np.where(images[..., 3:] > 0, images[..., :3], 255).astype(np.uint8)
    judge = RandomFeatures((4, 16, 24))
    assert judge.name == "random features 16x24x3"
    np.testing.assert_array_equal(judge.features(images), judge.features(flat))


def test_transparency_is_kept_only_if_that_is_asked_for(tmp_path: Path) -> None:
    data = choose(sprites(tmp_path / "set"))
    recipe, words = choose_recipe(data)
    assert recipe.data.channels == 3 and words.endswith(
        "Some images are transparent, and lose that; --set data.channels=4 keeps it."
    )
    recipe, words = choose_recipe(data | {"data.channels": 4, "data.fit": "pad"}, size="48x32")
    assert recipe.data.shape == (4, 32, 48) and recipe.data.fit == "pad" and "transparent" not in words
    assert recipe.name == "set-flow-48x32"
    with pytest.raises(UserError, match=r"scaled as they are decoded; set data\.loading"):
        recipe.updated({"data.loading": "batch"})
    with pytest.raises(UserError, match="'red' is not a colour; write it as '#rrggbb'"):
        recipe.updated({"data.background": "red"})


# -- all the way ------------------------------------------------------------------------------------------


@pytest.mark.extra("onnx", "onnxruntime")
@pytest.mark.parametrize("name", ["modern-vae-32", "modern-gan-32", "modern-flow-28"])
def test_from_files_to_an_export(name: str, tmp_path: Path) -> None:
    folder = sprites(tmp_path / "set")
    run = zeuxis.train(
        name, data=folder, size="24x16", steps=1, runs=tmp_path / "runs", progress=False,
        settings={"data.channels": 4, "data.convert": True, "training.batch_size": 8},
    )  # fmt: skip
    assert run.recipe.data.shape == (4, 16, 24) and run.name == f"{name.rpartition('-')[0]}-24x16-1"
    if name == "modern-flow-28":
        run.configure(solver_steps=1)
    assert run.sample(2).shape == (2, 16, 24, 4) and run.snapshots[0][1].shape[1:] == (16, 24, 4)
    picture = save_samples(run, 3, tmp_path / "out")
    with Image.open(tmp_path / "out" / "0000.png") as sample, Image.open(picture) as grid:
        assert (sample.size, sample.mode) == ((24, 16), "RGBA") and grid.mode == "RGB"
    if run.encodes:
        latents = run.encode_files([folder / "box" / "00.png", folder / "disc" / "01.png"])
        assert run.decode(latents).shape == (2, 16, 24, 4)
    lines = export(run, "onnx", tmp_path / "onnx")
    assert any("images (batch, 16, 24, 4)" in line for line in lines)
    with pytest.raises(UserError, match=r"shape \(24, 16, 4\); this run takes \(H, W, C\) = \(16, 24, 4\)"):
        run._pixels(np.zeros((1, 24, 16, 4), np.uint8))


@pytest.mark.slow
def test_the_judge_of_transparent_images_is_a_classifier_of_them_on_white(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeuxis.evaluation.judge.MINUTES", MINUTES / 30)
    run = zeuxis.train(
        "modern-gan-32", data=sprites(tmp_path / "set", 80), size="24x16", steps=1, runs=tmp_path, progress=False,
        settings={"data.channels": 4, "data.background": "#ff0000"},
    )  # fmt: skip
    assert judged(run.recipe.data).shape == (3, 16, 24)
    judge = find_or_train_judge(run)
    evaluation = evaluate(run, samples=100, judge=judge, only=["fid"], progress=False)
    assert evaluation["measures"]["fid"]["value"] > 0
    if isinstance(judge, Run):
        assert judge.recipe.data.shape == (3, 16, 24) and judge.recipe.data.background == "#ffffff"
