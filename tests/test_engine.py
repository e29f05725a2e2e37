"""Updates, optimisers, schedules, roles and callbacks: what a training is put together from."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zeuxis
from zeuxis.errors import UserError
from zeuxis.figures import kinds
from zeuxis.models import Iteration, Model, ModelOptions, Phase, build_model, phase, register
from zeuxis.models.base import Inputs, Terms
from zeuxis.recipe import load_recipe
from zeuxis.registry import Registry
from zeuxis.run import Run
from zeuxis.training import Callback, Checkpoint, Trainer, checkpoints, resume
from zeuxis.training.callbacks import standard_callbacks
from zeuxis.training.engine import Update, iterate
from zeuxis.training.monitors import WINDOW
from zeuxis.training.optimizers import OPTIMIZERS, build_updates, unwrapped
from zeuxis.training.schedules import SCHEDULES

FIXED = {
    "training.batch_size": 8, "training.precision": "float32", "training.threads": 1, "training.log_every": 1,
    "training.test_every": "never", "training.snapshot_every": "never", "training.best": "",
}  # fmt: skip


def train(recipe: str, folder: Path, name: str = "run", **settings: object) -> Run:
    given = FIXED | {key.replace("__", "."): value for key, value in settings.items()}
    return zeuxis.train(recipe, settings=given, runs=folder, name=name, progress=False)


def tensors(run: Run) -> dict[str, Tensor]:
    return Checkpoint.read(checkpoints(run.path / "checkpoints")[0]).tensors


# -- updates ------------------------------------------------------------------------------------------


def test_accumulated_batches_make_the_gradient_of_one(tmp_path: Path) -> None:
    """An autoencoder draws nothing at random, and its loss is a mean: four batches of 4 are one of 16."""
    digits = {"data__source": "digits", "data__convert": True}
    few = train("mnist-ae-z3", tmp_path, "few", **digits, training__steps=3, training__batch_size=16)
    many = train(
        "mnist-ae-z3", tmp_path, "many", **digits, training__steps=3, training__batch_size=4,
        training__accumulate=4,
    )  # fmt: skip
    assert few.last("images") == many.last("images") == 48
    for name, value in tensors(few).items():
        if name.startswith("networks/"):
            torch.testing.assert_close(tensors(many)[name], value, rtol=1e-4, atol=2e-5)
    for few_line, many_line in zip(few.journal, many.journal, strict=True):
        assert many_line["autoencoder/loss"] == pytest.approx(few_line["autoencoder/loss"], rel=1e-4)
        assert many_line["autoencoder/gradient_norm"] == pytest.approx(few_line["autoencoder/gradient_norm"], rel=1e-3)


def test_a_gradient_is_clipped_to_its_norm_and_journalled_as_it_was() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    update = Update([weight], torch.optim.SGD([weight], lr=1.0), clip=0.5)
    step = Iteration(torch.zeros(()), torch.Generator(), torch.device("cpu"), 1, lambda: None)  # type: ignore[arg-type, return-value]
    one = Phase("only", ("w",), 1, 1, 0, "only", lambda step: {"square": weight.square().sum() / 2})
    numbers = iterate([one], {"only": update}, [[step]])
    assert {number.name: float(number.value) for number in numbers}["only/gradient_norm"] == pytest.approx(5)
    torch.testing.assert_close(weight.detach(), torch.tensor([3 - 0.3, 4 - 0.4]), rtol=1e-5, atol=1e-5)


def test_a_training_may_clip(tmp_path: Path) -> None:
    free, clipped = (
        train("digits-vae", tmp_path, f"clip-{clip}", training__steps=2, training__optimizer__name="sgd",
              training__optimizer__learning_rate=1e-3, training__optimizer__clip=clip) for clip in (0, 1e-6)
    )  # fmt: skip
    start = build_model(load_recipe("digits-vae"), free.classes).networks.state_dict()
    moved = [
        max(float((tensors(run)[f"networks/{name}"] - value).abs().max()) for name, value in start.items())
        for run in (free, clipped)
    ]
    assert moved[0] > 1e-4 and moved[1] < 1e-8


@pytest.mark.parametrize(
    "name", [name if name in ("adamw", "sgd") else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_every_optimiser_learns_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    settings = {
        "training__optimizer__name": name, "training__optimizer__learning_rate": 1e-3 if name != "sgd" else 1e-5,
        "training__checkpoint_every": "never",
    }  # fmt: skip
    if name in ("sgd", "rmsprop"):
        settings["training__optimizer__momentum"] = 0.5
    whole = train("digits-vae", tmp_path, "whole", training__steps=12, **settings)
    assert whole.journal[-1]["vae/loss"] < whole.journal[0]["vae/loss"]
    half = train("digits-vae", tmp_path, "half", training__steps=6, **settings)
    assert resume(half.path, {"training.steps": 12}, visible=False)
    resumed, expected = tensors(half), tensors(whole)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_an_optimiser_follows_pytorchs_own() -> None:
    for kind in (torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop):
        weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
        for weight, made in zip(weights, (kind, unwrapped(kind)), strict=True):
            optimizer = made([weight], lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                (weight.square().sum() * 2).backward()
                optimizer.step()
        assert torch.equal(*weights)


def test_what_another_optimiser_left_is_not_taken_for_its_own(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=3)
    recipe = run.path / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('name = "adamw"', 'name = "sgd"'))
    text = recipe.read_text()
    recipe.write_text(text[: text.index("betas = [")] + text[text.index("]", text.index("betas = [")) + 1 :])
    assert resume(run.path, {"training.steps": 5}, visible=False)


def test_decay_can_leave_biases_and_scales_alone() -> None:
    recipe = load_recipe("digits-gan", ["training.optimizer.decay=weights", "training.optimizer.weight_decay=0.1"])
    model = build_model(recipe)
    update = build_updates(model)["generator"]
    assert update.optimizer is not None
    groups = update.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"]) and all(p.dim() == 1 for p in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.net("generator").parameters()))


def test_another_optimiser_drops_the_options_of_the_one_before() -> None:
    recipe = load_recipe("digits-gan", {"training.optimizer.name": "sgd", "training.optimizer.momentum": 0.9})
    assert "betas" not in recipe.training.optimizer.options
    assert recipe.training.optimizer.options["momentum"] == 0.9
    with pytest.raises(UserError, match=r"no key 'training.optimizer.betas'"):
        build_updates(build_model(load_recipe("digits-vae", ["training.optimizer={name='sgd', betas=[0.5, 0.9]}"])))


# -- schedules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, {0: 1, 0.5: 1, 1: 1}),
        ("constant", {"warmup": 0.5}, {0: 0, 0.25: 0.5, 0.5: 1, 1: 1}),
        ("warm-up", {}, {0: 0, 0.05: 0.5, 0.1: 1, 1: 1}),
        ("linear", {"end": 0.2}, {0: 1, 0.5: 0.6, 1: 0.2}),
        ("cosine", {}, {0: 1, 0.25: (1 + math.cos(math.pi / 4)) / 2, 0.5: 0.5, 1: 0}),
        ("cosine", {"warmup": 0.2, "end": 0.1}, {0.1: 0.5, 0.2: 1, 0.6: 0.55, 1: 0.1}),
        ("step", {"at": [0.5, 0.8], "factor": 0.1}, {0.49: 1, 0.5: 0.1, 0.79: 0.1, 0.8: 0.01, 1: 0.01}),
    ],
)
def test_a_schedule_follows_its_formula(name: str, options: Mapping[str, Any], expected: dict[float, float]) -> None:
    schedule = SCHEDULES[name].model_validate(options)
    for progress, rate in expected.items():
        assert schedule.rate(progress) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("budget", [{"training__steps": 10}, {"training__epochs": 10 / 202}])
def test_the_rate_is_set_and_journalled_whatever_the_budget(budget: dict[str, float], tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__schedule__name="linear", **budget)
    steps, rates = run.series("vae/learning_rate")
    assert run.names_of("rate") == ["vae/learning_rate"]
    full = run.recipe.training.optimizer.learning_rate
    # A line holds the rate of its own iteration, which began one iteration before.
    assert rates == pytest.approx([full * (1 - (step - 1) / 10) for step in steps], rel=1e-3)


# -- roles --------------------------------------------------------------------------------------------


class PlainOptions(ModelOptions):
    latent: int = 4


@register("plain-critic")
class PlainCritic(Model):
    """A game whose phases have names that no other model uses."""

    Options = PlainOptions
    generating_networks = ("maker",)

    def inputs(self) -> Inputs:
        return {"maker": (4,), "judge": self.image_shape}

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 4, generator=generator)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("maker")(latents).value

    @phase("critic", updates="judge")
    def criticise(self, iteration: Iteration) -> Terms:
        iteration.log("told_apart", torch.ones(()), "accuracy")
        iteration.log("gap", torch.zeros(()), "distance")
        iteration.log("number", torch.ones(()))
        return {
            "score": self.net("judge")(iteration.images).value.mean(),
            "size": self.net("judge")(iteration.images).value.square().mean(),
        }

    @phase("maker", updates="maker")
    def make(self, iteration: Iteration) -> Terms:
        return {"score": self.net("judge")(self.generate(self.sample_latents(4, iteration.generator))).value.mean()}


GAME = """extends = "digits-gan"
[model]
name = "plain-critic"
[networks]
maker = { layers = ["dense 256", "reshape 1x16x16", "tanh"] }
judge = { layers = ["flatten", "dense 1"] }
[training]
ema = 0.0
"""


def test_figures_and_monitors_go_by_roles(tmp_path: Path) -> None:
    """A phase may be called as its author likes; what counts is what its numbers are."""
    base = load_recipe("digits-gan")
    text = GAME.replace('extends = "digits-gan"', '[data]\nsource = "digits"\nsize = 16\nrange = "-1..1"')
    text = text.replace("ema = 0.0", "optimizer = { learning_rate = 1e-3 }\nbatch_size = 4")
    (tmp_path / "game.toml").write_text(text)
    assert base.data.size == (16, 16)
    run = train(str(tmp_path / "game.toml"), tmp_path, training__steps=WINDOW + 2, training__batch_size=4)
    assert {name: run.journal.roles[name] for name in run.journal.roles if name.startswith("critic/")} == {
        "critic/score": "term", "critic/size": "term", "critic/loss": "loss", "critic/told_apart": "accuracy",
        "critic/gap": "distance", "critic/number": "diagnostic", "critic/gradient_norm": "gradient",
        "critic/learning_rate": "rate",
    }  # fmt: skip
    applying = {kind.name for kind in kinds() if kind.applies(run)}
    assert {"losses", "accuracy", "critic", "gradients"} <= applying
    assert any("The critic wins" in words for words in run.warnings)
    from zeuxis.figures.losses import panels

    drawn = {name for _, terms in panels(run) for name in terms.values()}
    assert drawn == {"critic/loss", "maker/loss", "critic/score", "critic/size"}, "losses and their parts alone"


# -- phases at intervals ------------------------------------------------------------------------------


def test_lazy_penalties_come_at_their_interval_and_as_strong(tmp_path: Path) -> None:
    run = train(
        "digits-gan", tmp_path, training__steps=9, model__r1_penalty=0.5, model__lazy_penalties=4,
    )  # fmt: skip
    steps, _ = run.series("penalty/r1")
    assert steps.tolist() == [1, 5, 9]
    assert "discriminator/r1" not in run.journal.roles
    line = run.journal[0]
    assert line["penalty/loss"] == pytest.approx(4 * 0.5 / 2 * line["penalty/r1"], rel=1e-5)
    optimizers = {name.split("/")[1] for name in tensors(run) if name.startswith("optimizers/")}
    assert optimizers == {"discriminator", "generator"}, "the penalty is a step of the discriminator's optimiser"


# -- callbacks ----------------------------------------------------------------------------------------


class Counting(Callback):
    """Counts iterations over interruptions, and hears of everything."""

    def __init__(self) -> None:
        self.count, self.heard = 0, []

    def begin(self, trainer: Trainer) -> None:
        self.heard.append("begin")

    def iterated(self, trainer: Trainer) -> None:
        self.count += 1
        self.seen = torch.full((2,), float(self.count))

    def tested(self, trainer: Trainer) -> Mapping[str, float]:
        assert not trainer.model.training, "as it will be used"
        self.heard.append("tested")
        return {"iterations": float(self.count)}

    def snapshot(self, trainer: Trainer, images: Any) -> None:
        self.heard.append(f"drawn {images.shape}")

    def logged(self, trainer: Trainer, line: dict[str, Any]) -> None:
        self.heard.append(f"recorded {line['step']}")

    def end(self, trainer: Trainer) -> None:
        self.heard.append("end")

    def state(self) -> Mapping[str, Any]:
        return {"counting": self.count, "counting/seen": self.seen}

    def restore(self, checkpoint: Checkpoint) -> None:
        self.count, self.seen = checkpoint.state["counting"], checkpoint.tensors["counting/seen"]


def test_a_callback_takes_part_from_begin_to_end_and_over_interruptions(tmp_path: Path) -> None:
    settings = FIXED | {"training.steps": 4, "training.test_every": "2 steps", "training.snapshot_every": "4 steps"}
    first = Counting()
    run = zeuxis.train("digits-vae", settings=settings, runs=tmp_path, name="run", progress=False, callbacks=[first])
    assert first.heard == [
        "begin", "drawn (16, 16, 16, 1)", "recorded 1", "tested", "recorded 2", "recorded 3", "tested", "recorded 4",
        "drawn (16, 16, 16, 1)", "end",
    ]  # fmt: skip
    assert run.series("test/iterations")[1].tolist() == [1.0, 3.0], "tests are told before it has counted"
    second = Counting()
    assert resume(run.path, {"training.steps": 6}, visible=False, callbacks=[second])
    assert second.count == 6 and second.seen.tolist() == [6.0, 6.0]


def test_one_list_holds_all_that_takes_part() -> None:
    model = build_model(load_recipe("digits-gan"))
    names = [type(callback).__name__ for callback in standard_callbacks(model, visible=False)]
    assert names == [
        "MovingAverage", "Testing", "Watch", "Records", "Warnings", "Snapshots", "Rates", "Checkpoints",
        "Mirror", "Display",
    ]  # fmt: skip


def test_a_callback_that_cannot_be_had_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # type: ignore[arg-type]
    for choices, message in (
        (["tensorboard"], r"install it with: pip install .zeuxis\[tensorboard\]"),
        (["tensorbord"], "no callback 'tensorbord'. Did you mean 'tensorboard'"),
        ([{"name": "tensorboard", "image": True}], "no key 'training.callbacks.0.image'. Did you mean 'images'"),
    ):
        with pytest.raises(UserError, match=message):
            train("digits-vae", tmp_path / "runs", training__callbacks=choices, training__steps=1)
    assert not (tmp_path / "runs").exists()


# -- the registry -------------------------------------------------------------------------------------


def test_a_registry_refuses_a_name_that_another_module_has() -> None:
    colours: Registry[str] = Registry("colour")
    colours.register("red", "#ff0000")
    colours.register("red", "#ee0000")
    assert colours["red"] == "#ee0000", "a module that is loaded again replaces what it had"
    with pytest.raises(UserError, match="Two modules register the colour 'red'"):
        colours.register("red", "#dd0000", "elsewhere")
    with pytest.raises(UserError, match=r"There is no colour 'rad'\. Did you mean 'red'\?"):
        colours["rad"]
    assert list(colours) == ["red"] and "rad" not in colours


def test_entry_points_of_installed_packages_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hues-1.0.dist-info").mkdir()
    (tmp_path / "hues-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hues\nVersion: 1.0\n")
    (tmp_path / "hues-1.0.dist-info" / "entry_points.txt").write_text("[zeuxis.hue]\nhues = hues\nbad = no_such_hues\n")
    (tmp_path / "hues.py").write_text("import sys\nsys.modules['hues_test'].HUES.register('teal', 'hues')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    hues: Registry[str] = Registry("hue")
    monkeypatch.setitem(sys.modules, "hues_test", SimpleNamespace(HUES=hues))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="The hue 'bad' of no_such_hues cannot be loaded"):
        hues.load()
    assert hues["teal"] == "hues"
