"""The frame of every page, and the plain HTML elements that pages are made of.

Pages use the browser's own elements, buttons, inputs, dialogs: these have labels, keyboard and focus by themselves.
Text reaches them as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from zeuxis.errors import UserError, shortened

__all__ = [
    "Dialog",
    "Tag",
    "badge",
    "button",
    "caution",
    "dialog",
    "each",
    "field",
    "link",
    "page",
    "picture",
    "select",
    "tell",
    "text_input",
    "tick",
    "told",
]

PAGES = (("Runs", "/"), ("Train", "/train"), ("Explore", "/explore"), ("Blind test", "/blind"), ("Compare", "/compare"))


class Tag(TextElement):
    """An HTML element with text and attributes; `class_` and `for_` stand for `class` and `for`."""

    def __init__(self, kind: str, text: object = "", /, **attributes: Any) -> None:
        super().__init__(tag=kind, text=str(text))
        self.classes(attributes.pop("class_", ""))
        with self.props.suspend_updates():
            for key, value in attributes.items():
                if value is not None and value is not False:
                    # As an attribute, a value is where an input begins; as a property it would be put back at every
                    # change of the page, and with it what a person is typing.
                    spelt = "^value" if key == "value" and kind == "input" else key.rstrip("_").replace("_", "-")
                    self.props[spelt] = "" if value is True else value

    def heard(self, event: str, handler: Callable[..., Any], value: str = "") -> Tag:
        """Calls a handler on an event; with `value`, a JavaScript expression of the event, it gets that."""
        if value:
            self.on(event, lambda e: handler(e.args), js_handler=f"(e) => emit({value})")
        else:
            self.on(event, handler, [])
        return self


@contextmanager
def page(title: str, active: str = "") -> Iterator[Tag]:
    """Draws the bar and yields the main part of a page, to be filled; a `UserError` in it becomes a sentence there."""
    ui.page_title(f"{title} · Zeuxis")
    ui.add_head_html('<link rel="stylesheet" href="/studio/studio.css"><script src="/studio/studio.js"></script>')
    Tag("a", "Skip to the page", class_="skip", href="#main")
    with Tag("header", class_="bar"), ui.element("div"):
        Tag("a", "Zeuxis", class_="brand", href="/")
        with Tag("nav", aria_label="Pages"):
            for name, place in PAGES:
                Tag("a", name, href=place, aria_current="page" if name == active else None)
        Tag("button", "", id="theme", class_="plain", type="button", aria_label="Theme")
    toast = Tag("div", class_="toast", role="status", aria_live="polite")
    with Tag("div", class_="page", id="main", tabindex="-1") as main:
        main.toast = toast  # type: ignore[attr-defined]
        ui.context.client.toast = toast  # type: ignore[attr-defined]
        try:
            yield main
        except UserError as error:
            Tag("p", shortened(str(error)), class_="warning", role="alert")


def tell(message: object) -> None:
    """Shows a message at the foot of the page for some seconds; screen readers say it."""
    toast = ui.context.client.toast  # type: ignore[attr-defined]
    text = shortened(str(message))
    toast.set_text(text)
    with toast.parent_slot.parent:
        ui.timer(6.0, lambda: toast.set_text("") if toast.text == text else None, once=True)


@contextmanager
def told() -> Iterator[None]:
    """Tells a `UserError` of the block."""
    try:
        yield
    except UserError as error:
        tell(error)


def link(text: object, *parts: str, class_: str = "", **attributes: Any) -> Tag:
    """A link to a page of the studio; parts of its path may hold any characters."""
    return Tag("a", text, href="/" + "/".join(quote(part, safe="") for part in parts), class_=class_, **attributes)


def button(text: str, handler: Callable[..., Any] | None = None, class_: str = "", **attributes: Any) -> Tag:
    """A button; the handler takes no arguments."""
    made = Tag("button", text, type="button", class_=class_, **attributes)
    return made.heard("click", handler) if handler else made


def field(label: str, element: Callable[[], Tag]) -> Tag:
    """An element under its label."""
    with Tag("label", label, class_="field"):
        return element()


def text_input(
    value: str, handler: Callable[[str], Any], kind: str = "text", event: str = "input", **attributes: Any
) -> Tag:
    """A line of text."""
    made = Tag("input", type=kind, value=value, autocomplete="off", **attributes)
    return made.heard(event, handler, "e.target.value")


def select(options: dict[str, str], value: str, handler: Callable[[str], Any], **attributes: Any) -> Tag:
    """A list to choose from: words by value."""
    with Tag("select", **attributes) as made:
        for key, words in options.items():
            Tag("option", words, value=key, selected=key == value)
    return made.heard("change", handler, "e.target.value")


def tick(label: str, value: bool, handler: Callable[[bool], Any], **attributes: Any) -> Tag:
    """A box to tick, with its label."""
    with Tag("label", class_="tick", **attributes) as made:
        Tag("input", type="checkbox", checked=value).heard("change", handler, "e.target.checked")
        Tag("span", label)
    return made


def each(*actions: Callable[[], Any]) -> Callable[[], None]:
    """Returns a handler that does one thing after the other."""

    def handler() -> None:
        for action in actions:
            action()

    return handler


def badge(state: str) -> Tag:
    """The state of a run, in a word."""
    return Tag("span", state, class_=f"badge {state}")


def picture(source: str, alt: str, class_: str = "", **attributes: Any) -> Tag:
    """An image."""
    return Tag("img", src=source, alt=alt, class_=class_, **attributes)


def caution(text: object) -> Tag:
    """A sentence that warns."""
    return Tag("p", shortened(str(text)), class_="warning")


class Dialog:
    """A dialog over the page, which takes the focus and gives it back."""

    def __init__(self, title: str) -> None:
        self.box = Tag("dialog", aria_label=title)

    def show(self) -> None:
        """Opens it."""
        ui.run_javascript(f"getHtmlElement({self.box.id}).showModal()")

    def close(self) -> None:
        """Closes it."""
        ui.run_javascript(f"getHtmlElement({self.box.id}).close()")


@contextmanager
def dialog(title: str, text: str = "") -> Iterator[Dialog]:
    """Opens a dialog, to be filled; what was in an earlier one is gone."""
    with ui.context.client.content:
        made = Dialog(title)
    made.box.on("close", made.box.delete, [])
    with made.box:
        Tag("h2", title, style="margin-top:0")
        if text:
            Tag("p", text)
        yield made
    made.show()
