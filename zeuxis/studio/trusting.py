"""Asks on the page before code that came with a run is run."""

from __future__ import annotations

from nicegui import run as background
from nicegui import ui

from zeuxis.studio.shell import Tag, button, told
from zeuxis.studio.state import Studio
from zeuxis.trust import UntrustedError

__all__ = ["asked"]


async def asked(studio: Studio, name: str, *, load: bool = True) -> bool:
    """Whether a run may be opened; if it names code that nobody has trusted, the page shows it and asks.

    Args:
        studio: the studio.
        name: of the run.
        load: whether its weights are loaded as well, which a run that has just begun does not have.

    Raises:
        UserError: if the run cannot be opened for another reason.
    """
    try:
        run = await background.io_bound(studio.shelf.open, name)
        assert run is not None
        if load:
            await background.io_bound(lambda: run.model)
    except UntrustedError as refused:
        words = str(refused)
    else:
        return True
    with Tag("section", class_="card", aria_label="Code in this run"):
        Tag("h2", "This run would run code", style="margin-top:0")
        Tag("p", words.partition(": if you trust")[0] + ".")
        Tag(
            "p", "Code that somebody else wrote can do on this machine whatever you can do. Nothing of it has been run."
        )

        def trusted() -> None:
            with told():
                studio.shelf.trust(name)
                ui.navigate.reload()

        button("I trust its source: run it", trusted, "danger")
    return False
