"""Commands that measure and compare runs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zeuxis.cli.shared import (
    DataOption,
    Epochs,
    Jobs,
    Minutes,
    On,
    Only,
    Out,
    Plugins,
    RecipeName,
    RunName,
    Runs,
    Samples,
    Seeds,
    Settings,
    Steps,
    To,
    Trusted,
    app,
    budget,
    echo,
    names_in,
    open_run,
    overrides_of,
    print_brief,
    print_comparison,
    print_table,
    show,
    table_rows,
)
from zeuxis.errors import UserError
from zeuxis.files import path_part
from zeuxis.trust import Trust

# With fewer training images than this, `evaluate` prints a caution.
FEW = 500


class Search(StrEnum):
    """How a sweep chooses the values of its settings."""

    grid = "grid"
    random = "random"
    tpe = "tpe"


class Prune(StrEnum):
    """How a sweep ends trainings early."""

    asha = "asha"
    hyperband = "hyperband"


@app.command()
def evaluate(
    run: RunName,
    samples: Samples = 2000,
    seed: Annotated[int, typer.Option(help="seed of their latents")] = 0,
    judge: Annotated[
        str,
        typer.Option(
            metavar="JUDGE",
            help="measure in the features of efficientnet, inception, timm:NAME, random, or a classifier's run",
        ),
    ] = "",
    only: Annotated[str, typer.Option(metavar="NAMES", help="take only these measures, separated by commas")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the whole evaluation as JSON")] = False,
    to: To = None,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Measure a run. Writes evaluation.json into its folder."""
    from rich.table import Table

    from zeuxis.evaluation.evaluate import evaluate as measure
    from zeuxis.evaluation.features import JUDGES, judge_by_name
    from zeuxis.evaluation.measure import ARROWS, Value, by_name, error_as_text, figure_as_text
    from zeuxis.evaluation.verdict import training_state, verdict

    if as_json and to is not None:
        raise UserError("--json prints the whole evaluation, and --to its figures in another form; give one of them.")
    names = names_in(only)
    opened = open_run(run, runs, trust)
    judge_network = None
    if judge.partition(":")[0] in JUDGES:
        judge_network = judge_by_name(judge, opened.recipe.data.shape)
    elif judge:
        try:
            judge_network = open_run(judge, runs, trust)
        except UserError as missing:
            raise UserError(f"{missing} Judges by name: {', '.join(JUDGES)}.") from missing
    evaluation = measure(opened, samples=samples, seed=seed, judge=judge_network, only=names)
    if as_json:
        echo(json.dumps(evaluation, indent=2))
        return
    if to is not None:
        from zeuxis.evaluation.ranking import ranked
        from zeuxis.report.table import Table as Measures

        print_table(Measures.of([[opened]], [opened.name], ranked([evaluation]), samples, seed), to, names)
        return
    sentences = [*verdict(opened, evaluation), *training_state(opened)]
    echo("\n".join([*sentences, ""]) if sentences else "")
    definitions = by_name()
    table = Table("measure", box=None, pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("± error", justify="right")
    table.add_column("images", justify="right")
    table.add_column("what it is")
    for name, value in evaluation["measures"].items():
        error = error_as_text(value["stderr"]) if value["stderr"] is not None else ""
        definition = definitions[name]
        table.add_row(
            name + ARROWS[definition.better],
            ("≥ " if value.get("at_least") else "") + figure_as_text(Value(**value)), error,
            f"{value['n']:,}" if value["n"] else "", definition.gives[name],
        )  # fmt: skip
    show(table)
    if any(value["features"] for value in evaluation["measures"].values()):
        note = ""
        if evaluation["features"].startswith("random features"):
            reason = "" if judge else ", because no classifier can tell classes of these images apart"
            note = f": a network with random weights{reason}"
        echo(f"\nDistances are in the features of {evaluation['features']}{note}.")
    left_out = evaluation["left_out"]
    for reason in dict.fromkeys(left_out.values()):
        echo(f"Not measured: {', '.join(name for name in left_out if left_out[name] == reason)}: {reason}.")
    if len(opened.dataset.train) < FEW:
        echo(
            f"Only {len(opened.dataset.train):,} training images: treat these numbers as rough. The error bars do not "
            "reflect such a small set."
        )


@app.command()
def report(run: RunName, out: Out = None, runs: Runs = None, trust: Trusted = False, plugin: Plugins = None) -> None:
    """Write a run's report: one self-contained HTML file."""
    from zeuxis.report import run_report

    echo(run_report(open_run(run, runs, trust), out))


@app.command()
def cite(
    run: Annotated[str, typer.Argument(help="a run, for the sources of what it uses as well")] = "",
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Print BibTeX entries: of Zeuxis and, for a run, of the sources of its model, options, data and measures."""
    from zeuxis.report.citing import bibtex

    echo(bibtex(open_run(run, runs, trust, copies=False) if run else None).rstrip("\n"))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="runs to compare")],
    seeds: Seeds = 1,
    samples: Samples = 2000,
    out: Out = None,
    to: To = None,
    only: Only = "",
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Compare runs in a report: one self-contained HTML file."""
    from zeuxis.study import compare as side_by_side

    chosen = table_rows(only, to)
    opened = [open_run(name, runs, trust) for name in names]
    print_comparison(side_by_side(opened, out, seeds=seeds, samples=samples), to, chosen)


@app.command()
def benchmark(
    models: Annotated[str, typer.Option(metavar="NAMES", help="models, recipes or TOML files, separated by commas")],
    data: Annotated[str, typer.Option(metavar="NAME_OR_PATH", help="a data source, or a folder or zip of images")],
    minutes: Annotated[float | None, typer.Option(help="train each for this many minutes")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="train each on this many images, over all epochs")] = None,
    seeds: Seeds = 1,
    samples: Samples = 2000,
    size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="side of the images or WIDTHxHEIGHT, for your own data")
    ] = None,
    settings: Settings = None,
    jobs: Jobs = None,
    on: On = "local",
    out: Annotated[Path | None, typer.Option(help="folder for runs and report [default: RUNS/benchmark-DATA]")] = None,
    to: To = None,
    only: Only = "",
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Train models on one budget and compare them. Continues where it was stopped."""
    from zeuxis import runs_dir
    from zeuxis.recipe import parse_overrides
    from zeuxis.study import benchmark as run_benchmark

    chosen = table_rows(only, to)
    folder = out or runs_dir(runs) / path_part(f"benchmark-{Path(data).stem}")
    overrides = parse_overrides(settings)
    overrides["plugins"] = [*overrides.get("plugins", []), *map(str, plugin or ())]
    compared = run_benchmark(
        names_in(models), data, folder, minutes=minutes, images=images, seeds=seeds, samples=samples, size=size,
        settings=overrides, trust=Trust(trust), jobs=jobs, on=on,
    )  # fmt: skip
    if to is None:
        print_brief(compared.table)
    print_comparison(compared, to, chosen)


@app.command()
def sweep(
    recipe: RecipeName,
    over: Annotated[
        list[str],
        typer.Option(metavar="KEY=V1,V2", help="a setting and its values, or its range LOW..HIGH for a search"),
    ],
    search: Annotated[
        Search, typer.Option(help="grid: all combinations; random: random values; tpe: Optuna's sampler")
    ] = Search.grid,
    trials: Annotated[
        int | None, typer.Option(min=2, max=10_000, help="number of trainings in a random or tpe search [default: 12]")
    ] = None,
    prune: Annotated[
        Prune | None,
        typer.Option(help="end trainings that do worse than others early, by this pruner of Optuna's"),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="where Optuna keeps a search: a database, such as sqlite:///search.db, or a file [default with "
            "--prune: search.journal in the folder]",
        ),
    ] = "",
    measures: Annotated[str, typer.Option(metavar="X,Y", help="measures to plot; a search minimises the second")] = "",
    data: DataOption = None,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Annotated[int | None, typer.Option(help="seed of the trainings and of a search")] = None,
    settings: Settings = None,
    samples: Samples = 2000,
    jobs: Jobs = None,
    on: On = "local",
    out: Annotated[Path | None, typer.Option(help="folder for runs and report [default: RUNS/sweep-RECIPE]")] = None,
    to: To = None,
    only: Only = "",
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Train a recipe with varied settings. Plots two measures; continues where it was stopped."""
    from zeuxis.recipe import load_recipe

    overrides = overrides_of(settings, data, **{"training.seed": seed}, **budget(epochs, steps, minutes))
    # Before importing PyTorch, which takes seconds, so that a mistake is reported at once.
    loaded = load_recipe(recipe, overrides, trust=Trust(trust), plugins=plugin or ())

    from zeuxis import runs_dir
    from zeuxis.study import parse_axis, require_apart
    from zeuxis.study import sweep as run_sweep

    chosen, axes = table_rows(only, to), [parse_axis(text) for text in over]
    require_apart(axes, overrides)
    compared = run_sweep(
        loaded, axes, out or runs_dir(runs) / f"sweep-{loaded.name}",
        search=search.value, trials=trials, shown=names_in(measures), samples=samples, jobs=jobs, on=on,
        prune=prune.value if prune else "", storage=storage,
    )  # fmt: skip
    if to is None:
        print_brief(compared.table, names_in(measures))
    print_comparison(compared, to, chosen)


@app.command()
def reproduce(
    report: Annotated[str, typer.Argument(help="digits, faces, faces-2, flowers or study; or a TOML file with a plan")],
    minutes: Annotated[
        float | None, typer.Option(help="training time for all systems together [default: the recipes' own budgets]")
    ] = None,
    data: Annotated[
        str, typer.Option(metavar="NAME_OR_PATH", help="train on these images in place of the report's")
    ] = "",
    ready: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="take finished runs of the same recipes from here")
    ] = None,
    samples: Samples = 2000,
    jobs: Jobs = None,
    on: On = "local",
    out: Annotated[Path | None, typer.Option(help="folder for runs and page [default: RUNS/reproduce-REPORT]")] = None,
    runs: Runs = None,
) -> None:
    """Train every system of a published report and write one page. Continues where it was stopped."""
    from zeuxis import runs_dir
    from zeuxis.study import reproduce as run_reproduction

    folder = out or runs_dir(runs) / path_part(f"reproduce-{Path(report).stem}")
    echo(run_reproduction(report, folder, minutes=minutes, data=data, ready=ready, samples=samples, jobs=jobs, on=on))
