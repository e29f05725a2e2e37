"""What a run or a recipe from somebody else may do here: nothing but be read."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import zeuxis
from zeuxis import cli
from zeuxis.errors import UserError
from zeuxis.files import LONGEST, is_name, path_part
from zeuxis.models import build_model
from zeuxis.recipe import Recipe, load_recipe
from zeuxis.run import Run
from zeuxis.training import hardware

# A module that says, in a file beside it, that it was imported.
MODULE = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("imported").touch()

class Encoder(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Flatten(), nn.Linear(256, width))
"""
NETWORK = '[networks.encoder]\nlayers = []\nheads = {}\nmodule = "theirs.Encoder"\narguments = { width = 4 }\n'


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is there once a module of somebody's own was imported; it could be, as `theirs`."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.setenv("ZEUXIS_STATE", str(tmp_path / "state"))
    return folder / "imported"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A recipe of the user's own that names the module."""
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "digits-vae"\n[training]\nsteps = 3\nbatch_size = 8\n{NETWORK}')
    return path


def command(*arguments: str | Path) -> int:
    argv, sys.argv = sys.argv, ["zeuxis", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = argv
    return ended.value.code or 0


@pytest.fixture
def stranger(trained: dict[str, Run], tmp_path: Path) -> Path:
    """A run made elsewhere, whose recipe names the module."""
    folder = Path(shutil.copytree(trained["vae"].path, tmp_path / "theirs"))
    tree = trained["vae"].recipe.model_dump(exclude_none=True)
    tree["networks"]["encoder"] = {"module": "theirs.Encoder", "arguments": {"width": 4}}
    (folder / "recipe.toml").write_text(Recipe.model_validate(tree).to_toml())
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "RUN", "-n", "2"),
        ("reconstruct", "RUN"),
        ("interpolate", "RUN", "--from", "1", "--to", "2"),
        ("figures", "RUN"),
        ("evaluate", "RUN", "--samples", "100"),
        ("report", "RUN"),
        pytest.param(("compare", "RUN", "GAN", "--samples", "100"), marks=pytest.mark.slow),
        ("compare", "RUN", "GAN", "--seeds", "2", "--samples", "100"),
        ("resume", "RUN", "--steps", "50"),
        ("summary", "RUN/recipe.toml"),
        ("train", "RUN/recipe.toml", "--steps", "1"),
        ("train", "latent-gan", "--set", "model.vae=RUN", "--steps", "1"),
        ("sweep", "RUN/recipe.toml", "--over", "training.seed=1,2", "--steps", "1"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_no_command_runs_a_strangers_code(
    arguments: tuple[str, ...], stranger: Path, trained: dict[str, Run], theirs: Path, runs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = {"RUN": stranger, "GAN": trained["gan"].path}
    for name, path in places.items():
        arguments = tuple(text.replace(name, str(path)) for text in arguments)
    assert command(*arguments) == 2
    said = capsys.readouterr().err
    assert "theirs.Encoder(width=4)" in said and "--trust" in said and "Traceback" not in said
    assert not theirs.exists()


def test_python_runs_none_unless_told(stranger: Path, theirs: Path) -> None:
    with pytest.raises(UserError, match="trust=True"):
        zeuxis.load(stranger).sample(2)
    assert not theirs.exists()
    with pytest.raises(UserError, match="does not fit"):  # the weights are of other networks: it was built
        zeuxis.load(stranger, trust=True).sample(2)
    assert theirs.exists()


def test_what_one_made_oneself_opens_and_a_copy_does_not(
    mine: Path, theirs: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = zeuxis.train(mine, runs=runs, name="r", progress=False)
    assert theirs.exists()
    assert Run(run.path).sample(2).shape == (2, 16, 16, 1)
    assert command("resume", "r", "--steps", "4") == 0
    assert command("train", "latent-gan", "--set", "model.vae=r", "--steps", "1", "--name", "l") == 0
    assert Run(runs / "l").sample(2).shape == (2, 16, 16, 1)
    copy = shutil.copytree(run.path, runs / "copy")
    capsys.readouterr()
    assert command("sample", copy, "-n", "2") == 2
    assert "--trust" in capsys.readouterr().err
    assert command("sample", copy, "-n", "2", "--trust") == 0
    # Other arguments are another call.
    text = (run.path / "recipe.toml").read_text()
    (run.path / "recipe.toml").write_text(text.replace("width = 4", "width = 5"))
    with pytest.raises(UserError, match="width=5"):
        Run(run.path).sample(2)


@pytest.mark.usefixtures("short_reports")
def test_a_trusted_copy_with_a_plugin_is_resumed_and_compared(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("answer = 42\n")
    run = zeuxis.train("digits-gan", steps=3, plugins=[plugin], runs=runs, name="r", progress=False)
    copy = shutil.copytree(run.path, runs / "copy")
    assert command("resume", copy, "--steps", "4") == command("compare", copy, run.path) == 2
    assert capsys.readouterr().err.count("add --trust") == 2
    assert command("resume", copy, "--steps", "4", "--trust") == 0
    assert command("compare", copy, run.path, "--samples", "100", "--out", tmp_path / "c.html", "--trust") == 0
    assert (tmp_path / "c.html").exists()
    # Repeats of a run that was made elsewhere are trained, and found again.
    again = ("compare", copy, run.path, "--seeds", "2", "--samples", "100", "--out", tmp_path / "s.html", "--trust")
    assert command(*again) == command(*again) == 0


def test_a_recipe_is_trusted_in_what_it_says_itself(mine: Path, theirs: Path, tmp_path: Path) -> None:
    build_model(load_recipe(mine))
    child = tmp_path / "child.toml"
    child.write_text('extends = "mine.toml"\n[training]\nseed = 1\n')
    with pytest.raises(UserError, match="--trust"):
        build_model(load_recipe(child))
    child.write_text('extends = "mine.toml"\n[networks.encoder]\narguments = { width = 4 }\n')
    with pytest.raises(UserError, match="--trust"):
        build_model(load_recipe(child))
    named = {"networks.encoder.module": "theirs.Encoder", "networks.encoder.arguments": {"width": 4}}
    build_model(load_recipe(child, named))
    build_model(load_recipe(child).updated({"training.seed": 2}).trusting(load_recipe(mine).trust))
    assert load_recipe(mine) == load_recipe(mine).trusting(load_recipe(child).trust), "trust is no part of a recipe"


def test_a_run_that_cannot_be_remembered_is_trained_all_the_same(
    mine: Path, theirs: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").write_text("")
    run = zeuxis.train(mine, runs=runs, progress=False)
    assert "you will be asked for --trust" in " ".join(capsys.readouterr().err.split())
    assert run.sample(1).shape == (1, 16, 16, 1)


def test_any_text_becomes_one_part_of_a_path() -> None:
    texts = [
        "7",
        "a/b",
        "a\\b",
        "a-b",
        "..",
        ".",
        "",
        "%",
        "/../../escaped",
        "a\0b",
        "\x1b[31m",
        "é",
        "\udcff",
        "x" * 999,
        "é" * 999,
        " ",
        "\u00a0",
    ]
    parts = [path_part(text) for text in texts]
    assert all(is_name(part) and len(part.encode()) <= LONGEST for part in parts)
    assert len(set(parts)) == len(texts)
    assert (path_part("7"), path_part("lr=0.1,z=2"), path_part("a/b")) == ("7", "lr=0.1,z=2", "a%2Fb")


def test_a_class_named_as_a_path_stays_in_the_folder(trained: dict[str, Run], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained["cgan"].path, tmp_path / "a" / "b" / "copy"))
    environment = (copy / "environment.json").read_text()
    (copy / "environment.json").write_text(environment.replace('"7"', '"/../../../escaped"', 1))
    assert command("sample", copy, "-n", "2", "--label", "/../../../escaped") == 0
    assert not list(tmp_path.rglob("escaped"))
    assert (copy / "samples" / "seed-1-label-%2F..%2F..%2F..%2Fescaped").is_dir()


@pytest.mark.parametrize("name", ["../../x", "/abs", "..", ".", "a/b", "", "a\x1b[31m", "n" * 999, "a\\b"])
def test_no_name_leaves_the_folder_of_runs(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="cannot name the folder"):
        load_recipe("digits-vae", {"name": name})
    if name:
        assert command("train", "digits-vae", "--steps", "1", "--name", name) == 2
        assert "cannot name a run" in capsys.readouterr().err and not runs.exists()


def test_a_batch_that_no_machine_holds_is_told_before_a_run_is_made(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(total=2**20))
    assert command("train", "digits-vae", "--steps", "1") == 2
    assert "A batch of 32 images needs at least" in capsys.readouterr().err
    assert not runs.exists()


def test_resuming_does_not_follow_a_link_out_of_the_run(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(trained["vae"].path, tmp_path / "copy"))
    outside = Path(shutil.move(copy / "checkpoints", tmp_path / "outside"))
    (outside / "best.safetensors").unlink(missing_ok=True)
    (copy / "checkpoints").symlink_to(outside)
    before = sorted(outside.iterdir())
    assert command("resume", copy, "--steps", "41") == 2
    assert "leads out of the run" in capsys.readouterr().err and sorted(outside.iterdir()) == before
