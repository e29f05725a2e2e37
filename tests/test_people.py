"""What people make of pictures: shares, intervals, tests, and their place among the measures."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from scipy.stats import binomtest, fisher_exact

from zeuxis.evaluation.evaluate import evaluate, read_evaluation
from zeuxis.evaluation.people import (
    Answer,
    Share,
    by_person,
    differences,
    figures_of,
    read_answers,
    record,
    shares,
    wilson,
)
from zeuxis.evaluation.ranking import ranked
from zeuxis.files import WriteError
from zeuxis.run import Run


def answer(said: str, truth: str = "made", **more: Any) -> Answer:
    line = {
        "test": "single",
        "person": "Ann",
        "session": "s",
        "when": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        "step": 40,
    }
    return Answer(**(line | {"truth": truth, "said": said} | more))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (50, 120), (1, 1)])
def test_the_interval_is_wilsons(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_answers_say_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0) and Share(0, 0).value == 0.0 and shares([]) == {}


def test_shares_by_kind_and_person() -> None:
    given = [
        answer("real"),
        answer("made"),
        answer("made"),
        answer("made", "real"),
        answer("real", "real", person="Ben"),
    ]
    assert shares(given) == {"deceived": Share(1, 3), "doubted": Share(1, 2), "errors": Share(2, 5)}
    twins = [answer("real", test="twin"), answer("made", test="twin")]
    assert shares(twins) == {"twins": Share(1, 2)}
    assert by_person(given)["Ben"] == {"doubted": Share(0, 1), "errors": Share(0, 1)}


def test_models_are_told_apart_by_fishers_test_with_holms_correction() -> None:
    groups = {"a": Share(30, 40), "b": Share(8, 40), "c": Share(14, 40)}
    found = differences(groups)
    assert {(one, other) for one, other, _, differ in found if differ} == {("a", "b"), ("a", "c")}
    assert found[0][2] == pytest.approx(fisher_exact([[30, 10], [8, 32]]).pvalue)
    assert not any(differ for *_, differ in differences({"a": Share(6, 10), "b": Share(5, 10)}))
    # 0.03 alone would do; of three pairs, the smallest must be below 0.05 / 3.
    near = {"a": Share(20, 40), "b": Share(10, 40), "c": Share(15, 40)}
    assert differences(near)[0][2] < 0.05 and not differences(near)[0][3]


@pytest.fixture
def run(trained: dict[str, Run], tmp_path: Path) -> Run:
    return Run(copytree(trained["gan"].path, tmp_path / "gan"))


def test_answers_are_lines_that_outlive_damage(run: Run) -> None:
    record(run.path, [answer("real")])
    with (run.path / "blind.jsonl").open("a") as file:
        file.write('{"test": "single", "per')
    record(run.path, [answer("made"), answer("real", step=7)])
    assert [a.said for a in read_answers(run.path)] == ["real", "made", "real"]
    assert [a.said for a in read_answers(run.path, step=40)] == ["real", "made"]


def test_answers_are_not_written_through_a_link(run: Run, tmp_path: Path) -> None:
    (run.path / "blind.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError, match="is a link"):
        record(run.path, [answer("real")])
    assert not (tmp_path / "elsewhere").exists()


def test_people_are_a_measure_like_any_other(run: Run) -> None:
    step = run.step
    evaluate(run, samples=100, only=["fid"], progress=False)
    assert figures_of(run) == {}
    record(run.path, [answer("real" if i % 4 == 0 else "made", step=step) for i in range(20)])
    figure = figures_of(run)["human_deception"]
    low, high = wilson(5, 20)
    assert (figure.value, figure.n) == (0.25, 20) and figure.stderr == pytest.approx((high - low) / 3.92, rel=1e-3)
    evaluation = read_evaluation(run)  # without measuring anew
    assert evaluation is not None and evaluation["measures"]["human_deception"]["value"] == 0.25
    assert "human_deception" in [row.name for row in ranked([evaluation])]
    written = evaluate(run, samples=100, only=["human_deception"], progress=False)
    assert {"fid", "human_deception"} <= written["measures"].keys()
    (run.path / "blind.jsonl").unlink()
    kept = read_evaluation(run)
    assert kept is not None and "human_deception" not in kept["measures"]
    assert "human_deception" in json.loads((run.path / "evaluation.json").read_text())["measures"]
