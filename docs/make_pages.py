"""Writes docs/recipes.md and docs/figures.md from the code: recipes, keys, words of a layer spec; kinds of figures."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

from pydantic import BaseModel

from zeuxis.figures import kinds
from zeuxis.models import build_model, models
from zeuxis.nets import layers, summary
from zeuxis.recipe import DataOptions, NetworkOptions, OptimizerOptions, TrainingOptions, load_recipe, recipe_names

HEAD = """# Recipes

<!-- Written by docs/make_pages.py; `make docs` renews it. -->

A recipe is TOML with four parts. `extends = "NAME"` takes another recipe, a named one or a file beside, and changes
what is given: tables are merged, lists replaced, one budget replaces another. A recipe that names another model than
the one it extends starts from that model's defaults, and a network with `layers` of its own has heads of its own, or
none. On the command line every key can be set by its dotted path, as in `--set training.batch_size=64`. A budget is
one of `epochs`, `steps` and `minutes`; an interval is written as `10 epochs`, `500 steps`, `2 minutes` or `never`.

## Those that come with the package

`origin` is the section of the specification that first describes the system.

| recipe | model | origin | images | parameters | budget | what it is |
|---|---|---|---|---|---|---|
"""


def rows(schema: type[BaseModel]) -> str:
    """Returns the fields of a part of a recipe as a table."""
    lines = ["| key | default | what |", "|---|---|---|"]
    for name, field in schema.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else "" if default is None else f"`{default!r}`"
        if isinstance(default, BaseModel):
            shown = "see below"
        what = field.description or ""
        if typing.get_origin(field.annotation) is typing.Literal:
            choices = ", ".join(f"`{choice}`" for choice in typing.get_args(field.annotation))
            what = "; ".join(filter(None, [what, choices]))
        lines.append(f"| `{name}` | {shown} | {what} |")
    return "\n".join(lines)


FIGURES = """# Figures

<!-- Written by docs/make_pages.py; `make docs` renews it. -->

`zeuxis figures RUN` draws everything that applies to a run into its `figures` folder, and `zeuxis report RUN` puts it
on one page. What applies is asked of the run, never of a model's name: whether it makes images, encodes them, is told
a class, has codes, classifies. `--only NAMES` draws some alone, and `--set KEY=VALUE` sets a figure's option, as in

```bash
zeuxis figures faces-vae-64-z512-1 --only latents --set points=2621 --set attribute=Smiling
```

`zeuxis compare RUN RUN...` puts runs side by side, samples from the same seeds first: two models, two latent sizes, two
budgets.

| name | what it shows | options |
|---|---|---|
"""


def render_figures() -> str:
    """Returns the page of figures."""
    lines = []
    for kind in kinds():
        options = ", ".join(f"`{name}={default!r}`" for name, default in kind.options.items())
        lines.append(f"| `{kind.name}` | **{kind.title}.** {kind.caption.replace('|', chr(92) + '|')} | {options} |\n")
    return FIGURES + "".join(lines)


def render() -> str:
    """Returns the page of recipes."""
    parts = [HEAD]
    for name in recipe_names():
        recipe = load_recipe(name)
        tables = summary(name, build_model(recipe).networks)["networks"]
        counts = ", ".join(f"{network} {table['total']:,}" for network, table in tables.items())
        kind = "grey" if recipe.data.channels == 1 else "colour"
        given = ("epochs", "steps", "minutes")
        budget = next(f"{getattr(recipe.training, key):g} {key}" for key in given if getattr(recipe.training, key))
        images = f"{recipe.data.source}, {recipe.data.size}x{recipe.data.size} {kind}"
        cells = (f"`{name}`", recipe.model.name, recipe.origin, images, counts, budget, recipe.description)
        parts.append(f"| {' | '.join(cells)} |\n")
    sections: dict[str, type[BaseModel]] = {
        "`[data]`": DataOptions,
        "`[training]`": TrainingOptions,
        "`[training.optimizer]`, and `[training.optimizers.PHASE]` where a phase differs": OptimizerOptions,
        "`[networks.NAME]`": NetworkOptions,
    }
    sections |= {f'`[model]` with `name = "{name}"`': cls.Options for name, cls in models().items()}
    parts += [f"\n## {title}\n\n{rows(schema)}\n" for title, schema in sections.items()]
    words = inspect.getdoc(layers) or ""
    parts.append("\n## Layer specs\n\n" + words.partition("\n\n")[2] + "\n")
    return "".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("recipes.md").write_text(render(), "utf-8")
    Path(__file__).with_name("figures.md").write_text(render_figures(), "utf-8")
