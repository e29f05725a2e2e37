"""Figures that need what only some models or data have, and what they show."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import zeuxis
from zeuxis.errors import UserError
from zeuxis.evaluation import nearest_images
from zeuxis.figures import draw_all, kinds, style
from zeuxis.figures.codes import sweep
from zeuxis.figures.export import save_images, whole_rows
from zeuxis.figures.prior import aggregate_posterior
from zeuxis.figures.side_by_side import side_by_side
from zeuxis.figures.style import STYLE, fitting, new_figure, write
from zeuxis.latent import attribute_direction
from zeuxis.run import Run

SCORE = '[networks.discriminator]\nlayers = ["conv 8 k3 s2", "lrelu 0.2", "flatten"]\nheads = { real = ["dense 1"]'
RECIPES = {
    "infogan": f"""extends = "digits-gan"
[model]
name = "infogan"
latent = 6
categorical = [4, 3]
continuous = 1
generator_updates = 2
{SCORE} }}
[networks.q]
layers = ["dense 8", "lrelu 0.2"]
""",
    "acgan": f"""extends = "digits-gan"
[data]
classes = ["3", "8"]
[model]
name = "acgan"
latent = 6
{SCORE}, class = ["dense 1"] }}
""",
    "wgan-gp": """extends = "digits-gan"
[model]
name = "wgan-gp"
latent = 6
[networks.discriminator]
layers = ["conv 8 k3 s2", "lrelu 0.2", "flatten", "dense 1"]
""",
    "classifier": """
[data]
source = "digits"
size = 8
[model]
name = "classifier"
[networks.classifier]
layers = ["flatten", "dense 32", "relu", "dense classes"]
[training]
epochs = 5
batch_size = 32
""",
    "large": """
[data]
source = "digits"
size = 128
[model]
name = "gan"
latent = 4
[networks.generator]
layers = ["dense 256", "reshape 1x16x16", "up 8", "sigmoid"]
[networks.discriminator]
layers = ["avgpool 16", "flatten", "dense 1"]
[training]
epochs = 5
batch_size = 8
""",
}


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of models with codes, an attribute, a critic, classes, and large images."""
    folder = tmp_path_factory.mktemp("more")
    runs = {}
    for name, text in RECIPES.items():
        (folder / f"{name}.toml").write_text(text)
        settings = {"training.log_every": 1, "training.batch_size": 16, "training.test_every": "never"}
        if name == "large":
            settings["training.schedule.name"] = "cosine"
        steps = 200 if name == "classifier" else 4
        runs[name] = zeuxis.train(
            folder / f"{name}.toml", steps=steps, settings=settings, runs=folder / "runs", progress=False
        )
    return runs


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A VAE on images whose attribute Smiling is the lower half's brightness, in CelebA's own files."""
    folder = tmp_path_factory.mktemp("data")
    generator, count = np.random.default_rng(0), 120
    smiles = generator.random(count) < 0.5
    (folder / "celeba").mkdir()
    with zipfile.ZipFile(folder / "celeba" / "img_align_celeba.zip", "w") as archive:
        for i, smile in enumerate(smiles):
            pixels = generator.integers(0, 60, (64, 64, 3), np.uint8)
            pixels[32:] += 180 * np.uint8(smile)
            Image.fromarray(pixels).save(folder / "face.png")
            archive.write(folder / "face.png", f"img_align_celeba/{i:06d}.png")
    rows = "".join(f"{i:06d}.png {1 if smile else -1} -1\n" for i, smile in enumerate(smiles))
    (folder / "celeba" / "list_attr_celeba.txt").write_text(f"{count}\nSmiling Male\n{rows}")
    split = "".join(f"{i:06d}.png {2 if i % 5 == 0 else 0}\n" for i in range(count))
    (folder / "celeba" / "list_eval_partition.txt").write_text(split)
    recipe = folder / "faces.toml"
    recipe.write_text(
        '[data]\nsource = "celeba"\nsize = 8\nchannels = 3\n[model]\nname = "vae"\nlatent = 3\n'
        'reconstruction = "mse"\nkl_weight = 0.02\n'
        '[networks.encoder]\nlayers = ["flatten", "dense 32", "relu", "dense 6"]\n'
        '[networks.decoder]\nlayers = ["dense 32", "relu", "dense 192", "sigmoid", "reshape 3x8x8"]\n'
        "[training]\nsteps = 300\nbatch_size = 32\n[training.optimizer]\nlearning_rate = 5e-3\n"
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("ZEUXIS_DATA", str(folder))
    run = zeuxis.train(recipe, runs=folder / "runs", progress=False)
    assert run.dataset  # opened while the data directory is set
    patch.undo()
    return run


COMMON = {
    "architecture", "losses", "gradients", "samples", "interpolations", "neighbours", "suspects", "history",
    "directions",
}  # fmt: skip


def test_every_kind_of_figure_is_drawn_for_some_run(more: dict[str, Run], faces: Run, trained: dict[str, Run]) -> None:
    applying = {name: {kind.name for kind in kinds() if kind.applies(run)} for name, run in more.items()}
    assert applying == {
        "infogan": COMMON | {"codes", "accuracy", "information", "updates"},
        "acgan": COMMON | {"pairs", "scales", "jumps", "accuracy"},
        "wgan-gp": COMMON | {"critic", "scales", "jumps", "updates"},
        "classifier": {"architecture", "confusion", "losses", "gradients"},
        "large": COMMON | {"large", "scales", "jumps", "accuracy", "rates"},
    }
    for kind in kinds():  # test_run.py draws all that apply to a run
        run = next(run for run in (*more.values(), faces, *trained.values()) if kind.applies(run))
        assert draw_all(run, only=[kind.name], progress=False)[kind.name].stat().st_size > 2000


def test_a_sweep_changes_its_code_alone(more: dict[str, Run]) -> None:
    run = more["infogan"]
    first, second, third = run.codes
    assert [(code.name, code.start, code.size) for code in run.codes] == [
        ("categorical 1", 6, 4), ("categorical 2", 10, 3), ("continuous 1", 13, 1),
    ]  # fmt: skip
    latents = run.latents(2)
    assert latents.shape == (2, 14)
    for code, values in ((first, 4), (second, 3), (third, 10)):
        tiles, names = sweep(run, code, rows=2)
        assert len(tiles) == 2 * values == 2 * len(names)
        at = latents.copy()
        at[:, code.start : code.start + code.size] = np.eye(code.size)[-1] if code.categorical else 2.0
        assert np.allclose(tiles[values - 1 :: values], run.decode(at), atol=1e-5), "the last column"


def test_a_classifier_learns_and_says_so(more: dict[str, Run]) -> None:
    run = more["classifier"]
    chosen = run.choose_images("test")
    right = (run.classify(run.images(chosen)).argmax(axis=1) == run.labels(chosen)).mean()
    assert right > 0.75
    with pytest.raises(UserError, match="which makes no images"):
        run.sample(2)
    with pytest.raises(UserError, match="does not classify"):
        more["infogan"].classify(run.images(chosen[:1]))


def test_the_direction_of_an_attribute_turns_it_on(faces: Run) -> None:
    chosen = faces.choose_images("test")
    plain = chosen[~faces.attribute("Smiling", chosen)]
    latents = faces.encode(faces.images(plain))
    lower = [
        faces.decode(latents + strength * attribute_direction(faces, "Smiling"))[:, 4:].mean() for strength in (0, 1)
    ]
    assert lower[0] < 0.3
    assert lower[1] > 0.5
    with pytest.raises(UserError, match=r"no attribute 'Smilng'.*Did you mean 'Smiling'"):
        faces.attribute("Smilng", chosen)
    with pytest.raises(UserError, match="has no direction"):
        attribute_direction(faces, "Male")


def test_figures_take_options(faces: Run, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = draw_all(faces, only=["latents"], options={"points": 12, "attribute": "Smiling"}, progress=False)
    assert set(drawn) == {"latents"}
    for given, message in (
        ({"point": 12}, "Did you mean 'points'"),
        ({"points": "many"}, "points is a whole number from 1 to 10,000, such as 500, not 'many'"),
        ({"points": 0}, "whole number from 1 to 10,000"),
        ({"points": 10**30}, "whole number from 1 to 10,000"),
        ({"attribute": 3}, "attribute is text"),
    ):
        with pytest.raises(UserError, match=message):
            draw_all(faces, only=["latents"], options=given, progress=False)
    with pytest.raises(UserError, match="Did you mean 'latents'"):
        draw_all(faces, only=["latent"], progress=False)


def test_nearest_images_are_the_nearest(trained: dict[str, Run]) -> None:
    run = trained["gan"]
    train = run.choose_images("train")
    wanted = run.images(train[[5, 700]]) * 0.9 + 0.02
    indices, distances = nearest_images(run, wanted, 2)
    everything = run.images(train)
    by_hand = np.sqrt(np.square(everything[None] - wanted[:, None]).sum(axis=(2, 3, 4)))
    order = np.argsort(by_hand, axis=1)[:, :2]
    assert np.array_equal(indices, train[order])
    assert np.allclose(distances, np.take_along_axis(by_hand, order, 1), atol=1e-3)


def test_the_aggregate_posterior_is_drawn_from_each_posterior(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    encoded = aggregate_posterior(run, 150)
    posterior = run.posterior(run.images(run.choose_images("test", 150)))
    z = (encoded - posterior.mean.numpy()) / np.exp(posterior.logvar.numpy() / 2)
    assert abs(z.mean()) < 0.2
    assert 0.85 < z.std() < 1.15


def test_long_names_are_wrapped_and_shortened() -> None:
    assert fitting("daisy", 9, 3) == "daisy"
    assert fitting("Große Blüten im Garten", 9, 3) == "Große\nBlüten im\nGarten"
    assert fitting("Große Blüten im Garten", 16) == "Große Blüten im…" and fitting("Rindfleisch", 6) == "Rindf…"
    lines = fitting("a b c d e f g h i j k l m n o p q r s t u v w", 9, 3).splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 9 and lines[-1].endswith("…")


def test_a_grid_names_its_rows_beside_enlarged_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 16, 16, 1))
    plain, named = (
        Image.open(save_images(images, tmp_path / name, 1, rows)).convert("RGB")
        for name, rows in (("plain", ()), ("named", ("picture", "reconstruction", "edit")))
    )
    assert plain.width == 64 and named.height == 3 * 128 + 2 * 8, "enlarged by 8"
    margin = np.asarray(named)[:, : named.width - 128]
    for third in np.array_split(margin, 3):
        assert (third < 200).any(), "a name"
    right = np.asarray(named)[:128, -128:, 0]
    assert np.array_equal(right, right[::8, ::8].repeat(8, 0).repeat(8, 1)), "each pixel is a square"


def test_runs_side_by_side(trained: dict[str, Run], more: dict[str, Run], tmp_path: Path) -> None:
    drawn = side_by_side([trained["vae"], trained["gan"], more["classifier"]])
    assert len(drawn.axes) == 2, "a classifier makes no images"
    drawn.savefig(tmp_path / "both.png")
    assert np.asarray(Image.open(tmp_path / "both.png").convert("L")).std() > 20


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (16, 4), (32, 8), (40, 8), (64, 8), (13, 4), (100, 10)])
def test_a_grid_has_whole_rows_where_it_can(count: int, columns: int) -> None:
    assert whole_rows(count) == columns


def test_names_are_never_read_as_mathematics(tmp_path: Path) -> None:
    """Classes and folders may have any name; matplotlib leaves labels that begin with _ out of legends."""
    run = zeuxis.train("digits-vae", data=odd_classes(tmp_path / "$_$"), steps=1, runs=tmp_path, progress=False)
    paths = draw_all(run, only=["latents", "samples"], progress=False)
    assert all(path.stat().st_size > 0 for path in paths.values())
    with mpl.rc_context(STYLE):
        drawn = next(kind for kind in kinds() if kind.name == "latents").draw(run)
    legend = drawn.axes[0].get_legend()
    assert legend is not None and {text.get_text() for text in legend.get_texts()} == {"$_$", "_noise_"}


def odd_classes(path: Path) -> Path:
    """Noise in two classes with names that mean something to a library."""
    generator = np.random.default_rng(0)
    for name in ("$_$", "_noise_"):
        (path / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(generator.integers(0, 255, (16, 16), dtype=np.uint8)).save(path / name / f"{i}.png")
    return path


def test_letters_that_no_font_has_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    def draw() -> Figure:
        figure = new_figure(2, 1)
        figure.subplots().set_title("\ue000 of no language")
        return figure

    style._tell_of_boxes.cache_clear()
    for name in ("a.png", "b.png"):
        write(draw, tmp_path / name)
    assert not recwarn.list
    assert capsys.readouterr().err.count("drawn as boxes") == 1


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"training.epochs": (1, 2)}, "epochs 2"),
        ({"training.ema": (0, 0.9995), "model.r1_penalty": (1.0, 0.5)}, "ema 0.9995, r1 penalty 0.5"),
        (
            {
                "model.augmentation": (["color"], ["translation"]),
                "training.ema": (0, 0.9995),
                "training.epochs": (1, 2),
            },
            "augmentation translation and 2 more",
        ),
        ({"model.augmentation": ([], ["color", "translation", "cutout"])}, "augmentation color translation cutout"),
        ({"training.schedule.name": ("constant", "cosine")}, "schedule cosine"),
        ({"training." + "long_name_" * 6: (1, 2), "training.epochs": (1, 2)}, "long name long name long… and 1 more"),
    ],
)
def test_what_changed_is_noted_as_briefly_as_axes_are_high(changes: dict[str, tuple[object, ...]], noted: str) -> None:
    run = SimpleNamespace(changes=[{"step": 5, "changes": changes}])
    ax = new_figure(3, 2).subplots()
    style.mark_changes(ax, run)  # type: ignore[arg-type]
    (text,) = [each.get_text() for each in ax.texts]
    assert text == noted and len(text) <= 40
