"""Reproductions of reports: plans, answers to claims, and the page, from tiny trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.errors import UserError
from zeuxis.evaluation.measure import Value, by_name
from zeuxis.figures import kinds
from zeuxis.recipe import load_recipe, recipe_names
from zeuxis.study.reproduce import Claim, _answer, read_plan, reports, reproduce

PLAN = """
title = "Two small systems"
about = "A plan for a test."

[[systems]]
name = "digits-vae"
title = "A: a VAE"
figures = ["samples", "reconstructions"]
numbers = [{ what = "parameters of the encoder", reported = 1, measure = "parameters of encoder" }]

[[systems]]
name = "larger"
recipe = "digits-vae"
title = "B: with more latents"
settings = { "model.latent" = 8 }
figures = ["samples", "manifold"]

[[questions]]
ask = "Which has more parameters?"
said = "Not said."
claims = [{ says = "The second", measure = "parameters", of = "larger", than = "digits-vae", is = "higher" }]
values = [{ measure = "vae/kl", of = "larger" }]
"""


@pytest.mark.parametrize("name", ["digits", "faces", "faces-2", "flowers", "study"])
def test_a_plan_names_what_there_is(name: str) -> None:
    plan = read_plan(name)
    figures, known = [kind.name for kind in kinds()], by_name()
    for system in plan.systems:
        assert (system.recipe or system.name) in recipe_names()
        load_recipe(system.recipe or system.name, system.settings)
        assert set(system.figures) <= set(figures)
    for _, measure in plan.quantities():
        assert measure in known or "/" in measure or measure.startswith("parameters of "), measure
    assert set(reports()) == {"digits", "faces", "faces-2", "flowers", "study"}


def test_the_reported_sizes_of_networks_are_ours() -> None:
    from zeuxis.models import build_model
    from zeuxis.nets import summary

    for name in reports():
        for system in read_plan(name).systems:
            asked = [number for number in system.numbers if number.measure.startswith("parameters of ")]
            if asked:
                model = build_model(load_recipe(system.recipe or system.name, system.settings))
                tables = summary(system.name, model.networks)["networks"]
                for number in asked:
                    assert tables[number.measure.split()[2]]["total"] == number.reported, (system.name, number.what)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (Value(3.0, 0.1, 100), Value(2.0, 0.1, 100), "confirmed"),
        (Value(2.0, 0.1, 100), Value(3.0, 0.1, 100), "refuted"),
        (Value(3.0, 1.0, 100), Value(2.0, 1.0, 100), "open"),
        (Value(3.0), Value(2.0), "confirmed"),
        (Value(3.0, 0.1, 100, "a"), Value(2.0, 0.1, 100, "a"), "confirmed"),
        (Value(3.0, 0.1, 100, "a"), Value(2.0, 0.1, 100, "b"), "open"),
        (None, Value(2.0, 0.1, 100), "open"),
    ],
)
def test_a_claim_is_held_against_the_measurements(first: Value | None, second: Value, verdict: str) -> None:
    claim = Claim.model_validate({"says": "A is higher", "measure": "fid", "of": "a", "than": "b", "is": "higher"})
    values = {(name, "fid"): value for name, value in (("a", first), ("b", second)) if value}
    answer = _answer(claim, values)
    assert answer.verdict == verdict
    assert not first or answer.why.endswith(", by a") == (first.features == second.features == "a")
    early = _answer(claim, values, {"b"})
    assert early.verdict == "open"
    assert (verdict == "open") or early.why.endswith("it is too early to say: b had few steps")


def test_a_report_is_reproduced(tmp_path: Path) -> None:
    plan = tmp_path / "tiny.toml"
    plan.write_text(PLAN)
    out = tmp_path / "out"
    page = reproduce(str(plan), out, minutes=0.02, samples=100, progress=False)
    text = page.read_text("utf-8")
    assert page == out / "tiny.html" and text.count("<img") == 3, "the manifold needs two latents, and is left out"
    assert "<b>confirmed</b>" in text and "vae/kl of larger" in text and "epochs (the report: 60 epochs)</b>" in text
    before = (out / "larger" / "journal.jsonl").read_bytes()
    again = CliRunner().invoke(
        app, ["reproduce", str(plan), "--minutes", "0.02", "--samples", "100", "--out", str(out)]
    )
    assert again.exit_code == 0 and (out / "larger" / "journal.jsonl").read_bytes() == before, (
        "nothing is trained twice"
    )
    other = reproduce(str(plan), tmp_path / "other", minutes=0.02, ready=out, samples=100, progress=False)
    assert not (other.parent / "digits-vae").exists(), "finished runs are taken from elsewhere"
    assert zeuxis.load(out / "digits-vae").recipe.training.minutes == pytest.approx(0.01)


def test_wrong_plans_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        read_plan("digit")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(PLAN.replace('than = "digits-vae"', 'than = "digits-vee"'))
    with pytest.raises(UserError, match="Did you mean 'digits-vae'"):
        read_plan(str(wrong))
    wrong.write_text("title = 3")
    with pytest.raises(UserError, match="title should be text"):
        read_plan(str(wrong))
