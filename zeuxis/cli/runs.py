"""Commands that list and manage runs."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from zeuxis.cli.shared import Out, RunName, RunNames, Runs, app, columns, echo, open_run, runs_app, show
from zeuxis.errors import UserError, one_of
from zeuxis.files import require_output, write_file

# From so many columns of the terminal on, the list of runs shows recipe, data, date and note as well.
WIDE = 120


@runs_app.callback()
def list_runs(
    context: typer.Context,
    sort: Annotated[str, typer.Option(help="name, date, recipe, state, distance, mse, size or step")] = "name",
    matching: Annotated[str, typer.Option("--filter", metavar="TEXT", help="only runs that mention this text")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    runs: Runs = None,
) -> None:
    if context.invoked_subcommand:
        return
    from rich.filesize import decimal
    from rich.table import Table

    from zeuxis import runs_dir
    from zeuxis.listing import SORTS, Entry, entries

    if sort not in SORTS:
        raise one_of("way to sort", sort, SORTS)
    if as_json and as_csv:
        raise UserError("--json and --csv cannot be combined; give only one.")
    listed = entries(runs_dir(runs), sort=sort, matching=matching)
    if as_json:
        echo(json.dumps([entry.row() for entry in listed], indent=1))
        return
    if as_csv:
        import csv

        text = StringIO()
        writer = csv.DictWriter(text, list(Entry.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(entry.row() for entry in listed)
        echo(text.getvalue().rstrip("\n"))
        return
    if not listed:
        echo(f"There are no runs in {runs_dir(runs)}{f' that mention {matching!r}' if matching else ''}.")
        _name_folders_below(runs_dir(runs))
        return
    wide = columns() >= WIDE
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "progress"):
        table.add_column(column, no_wrap=True)
    for column in ("distance", "MSE", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("recipe", "data", "started, UTC", "note") if wide else ():
        table.add_column(column)
    for entry in listed:
        table.add_row(
            ("* " if entry.star else "") + entry.name, entry.state, entry.progress,
            f"{entry.distance:.3g}" if entry.distance is not None else "",
            f"{entry.test_mse:.4f}" if entry.test_mse is not None else "", decimal(entry.bytes),
            *((entry.recipe, entry.data, entry.started, entry.note) if wide else ()),
        )  # fmt: skip
    show(table)
    if not wide and any(entry.note for entry in listed):
        echo("\n".join(f"{entry.name}: {entry.note}" for entry in listed if entry.note))
    judges = sorted({entry.judge or "tests in training" for entry in listed if entry.distance is not None})
    if len(judges) > 1:
        echo(f"Distances can be compared only within one of these: {', '.join(judges)}. --json and --csv name them.")
    _name_folders_below(runs_dir(runs))


def _name_folders_below(runs: Path) -> None:
    """Says which folders inside hold further runs, such as a sweep's."""
    from zeuxis.listing import below

    for folder, count in below(runs).items():
        runs_held = "1 more run" if count == 1 else f"{count:,} more runs"
        echo(f"{folder} holds {runs_held}: zeuxis runs --runs {quote(str(folder))}")


@runs_app.command("rm")
def remove_runs(
    names: RunNames,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    runs: Runs = None,
) -> None:
    """Delete runs for good. Asks first."""
    from zeuxis import runs_dir
    from zeuxis.listing import folder_of, remove

    folders = [folder_of(name, runs_dir(runs)) for name in dict.fromkeys(names)]
    try:
        agreed = yes or typer.confirm(f"Delete {', '.join(map(str, folders))} for good?")
    except typer.Abort:  # there is nobody to ask
        raise UserError("Nothing was deleted: nobody answered. --yes deletes without asking.") from None
    if not agreed:
        raise UserError("Nothing was deleted.")
    remove(folders)
    echo("\n".join(f"deleted {folder}" for folder in folders))


@runs_app.command("rename")
def rename_run(name: RunName, new: Annotated[str, typer.Argument(help="its new name")], runs: Runs = None) -> None:
    """Give a run another name."""
    from zeuxis import runs_dir
    from zeuxis.listing import folder_of
    from zeuxis.listing import rename as rename_folder

    echo(rename_folder(folder_of(name, runs_dir(runs)), new))


@runs_app.command("note")
def note_run(
    name: RunName, text: Annotated[str, typer.Argument(help="the note; an empty one removes it")], runs: Runs = None
) -> None:
    """Write a note on a run, which lists show."""
    from zeuxis import runs_dir
    from zeuxis.listing import annotate, folder_of

    annotate(folder_of(name, runs_dir(runs)), note=text)


@runs_app.command("star")
def star_run(
    names: RunNames,
    off: Annotated[bool, typer.Option("--off", help="remove the star")] = False,
    runs: Runs = None,
) -> None:
    """Star runs, which lists show first."""
    from zeuxis import runs_dir
    from zeuxis.listing import annotate, folder_of

    for folder in [folder_of(name, runs_dir(runs)) for name in names]:
        annotate(folder, star=not off)


@runs_app.command("prune")
def prune_runs(names: RunNames, runs: Runs = None) -> None:
    """Keep only a run's best weights. It takes a fraction of the space, and cannot be resumed."""
    from rich.filesize import decimal

    from zeuxis import runs_dir
    from zeuxis.listing import folder_of, prune

    for folder in [folder_of(name, runs_dir(runs)) for name in dict.fromkeys(names)]:
        freed = prune(folder)
        kept = "freed; it keeps the weights to sample and measure, and can no longer be resumed"
        echo(f"{folder}: {f'{decimal(freed)} {kept}' if freed else 'there is nothing to free'}")


@runs_app.command("journal")
def show_journal(
    name: RunName,
    as_csv: Annotated[bool, typer.Option("--csv", help="print every line as CSV")] = False,
    out: Out = None,
    runs: Runs = None,
) -> None:
    """Show the numbers of a training: each one's role, its first, lowest and newest value; or all, as CSV."""
    run = open_run(name, runs, trust=False, copies=False)
    if out is not None and not as_csv:
        raise UserError("--out takes the CSV of a journal; add --csv.")
    if as_csv:
        text = run.journal.to_csv()
        echo(write_file(require_output(out, ".csv"), text) if out else text.removesuffix("\n"))
        return
    from rich.table import Table

    table = Table("number", "role", box=None, pad_edge=False)
    for column in ("lines", "first", "lowest", "newest"):
        table.add_column(column, justify="right")
    for number, role in run.journal.roles.items():
        values = run.series(number)[1]
        table.add_row(number, role, f"{len(values):,}", *(f"{v:.4g}" for v in (values[0], values.min(), values[-1])))
    show(table)


@app.command()
def pretrained() -> None:
    """List the trained runs that come with the package. `zeuxis sample pretrained/NAME` uses one."""
    from zeuxis.pretrained import PREFIX, cards

    for card in cards():
        echo(f"{PREFIX}{card.name}\n  {card.description}.")
        echo(f"  Trained on {card.images}; licence: {card.licence}.\n  Measured: {card.measured}.\n")
