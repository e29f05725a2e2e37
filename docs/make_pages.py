"""Writes pages from the code: recipes with keys and layer words, kinds of figures, measures with who judges."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

from pydantic import BaseModel

from zeuxis.evaluation.judges import judges
from zeuxis.evaluation.measure import measures
from zeuxis.figures import kinds
from zeuxis.models import MODELS, build_model
from zeuxis.nets import layers, summary
from zeuxis.recipe import DataOptions, NetworkOptions, TrainingOptions, load_recipe, recipe_names
from zeuxis.training.optimizers import OPTIMIZERS
from zeuxis.training.schedules import SCHEDULES

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


MEASURES = """# Measures

<!-- Written by docs/make_pages.py; `make docs` renews it. -->

`zeuxis evaluate RUN` takes every measure that applies and writes `evaluation.json` beside the run; `--samples`,
`--seed` and `--only NAMES` say of what. Each figure comes with its standard error, the number it was taken from, and,
for a distance, the network in whose features it was measured:

```json
{"run": "mnist-gan-1", "step": 2340, "features": "mnist-cnn", "samples": 10000, "seed": 0,
 "measures": {"fid": {"value": 12.3, "stderr": 0.4, "n": 10000, "features": "mnist-cnn",
                      "at_least": false, "groups": 10}},
 "left_out": {"suspects": "it needs at least 100 held-out images, and there are 40"}}
```

All numbers are finite. A measure that cannot be taken is in `left_out` with its reason; an error that is not known is
`null`. `at_least` marks a lower bound, and `groups` says how many parts of the samples an error comes from, where it is
not every single one. The file holds one evaluation: `--only` keeps what stands there if it was taken of the same
weights, samples, seed and features, and replaces it otherwise. `zeuxis report` shows it. The file is checked when it is
read: one that is damaged is named and left out, and `zeuxis evaluate` measures again.

ELBO, importance bound and bits per dimension are those of the distribution that the model samples from. The prior of a
{doc}`two-stage VAE <models/two-stage-vae>` is a flow, whose density is computed on 100 held-out images, exactly up to
its solver's steps; of more than 32 latents it is estimated, which leaves the ELBO and gives no bound.

A distance means nothing without its features, and two distances in different features never stand in one row of a
comparison. Who judges is the first of these that there is:

1. a classifier that comes with the package, for the images it was trained on (below);
2. a classifier of the images' own classes, trained when it is first needed, and kept in the cache;
3. where images have no classes, or none that a classifier can tell, a convolutional network whose weights are drawn
   and never learned: `random features`. They say how alike two sets are in edges, textures and colours, not in what
   is shown, and they name no class.

`--judge RUN` names a classifier of your own; `--judge inception` measures in the Inception network, as the literature
does, through torch-fidelity (`pip install "zeuxis[inception]"`). The mathematics of each measure stands at the top of
its module in `zeuxis.evaluation` and in the {doc}`reference <api>`; `tests/test_trust.py` holds each against SciPy,
scikit-learn, brute force or a closed form, and has cheats caught: a generator that repeats ten images, and one that
returns training images.

## What is measured

Arrows say which way is better; measures without one describe.

| name | what it is |
|---|---|
"""
JUDGES = """
## Judges that come with the package

`python -m benchmarks.judges RUN...` makes one from a trained run; the recipe of its name trains it again.

| features | images | right on held-out images | parameters |
|---|---|---|---|
"""
STUDIES = """
## Many runs, one question

```bash
zeuxis compare mnist-vae-z16-1 mnist-gan-1 --seeds 3                        # repeats of each, mean and spread
zeuxis benchmark --models vae,gan,cgan --data mnist --minutes 5 --seeds 3   # all at one budget
zeuxis sweep mnist-vae-z16 --over model.kl_weight=0.01,0.1,1,10 --epochs 10 # what the KL weight trades
zeuxis sweep mnist-gan --over training.optimizer.learning_rate=1e-4..2e-3 --search tpe --trials 12 --minutes 2
zeuxis train mnist-gan --until fid                                          # ends when the distance no longer falls
```

In a comparison's table a value is bold where the run is better than every other by Welch's t test. The p-values of a
row are corrected by Holm for the number of runs, so a row in which the runs do not differ has a bold value at most 5
times in 100. Rows are not corrected for one another: of twenty measures by which the runs do not differ, one is bold on
average. With repeats (`--seeds`) the test uses their spread; for a single training it uses the error of measuring,
which knows nothing of how trainings differ, so its bold values hold for these weights and not for the recipe.

On a machine that does other things besides, `--images` makes a fairer budget than `--minutes`. A benchmark takes models
or recipes: a model stands for its `standard` recipe on such images. It, a sweep and repeats go on where they were
stopped, and what is trained is not trained again. A search is a function of its seed and of what it measured.
`--until fid` estimates the distance at every test, from 500 samples of fixed latents, for at most a tenth of the
training time; the journal holds it with its error as `test/fid`, and the best weights are kept by it.
"""


def render_measures() -> str:
    """Returns the page of measures."""
    arrows = {"low": " ↓", "high": " ↑", "": ""}
    lines = [
        f"| `{name}`{arrows[each.better]} | {text} |\n" for each in measures() for name, text in each.gives.items()
    ]
    rows = []
    for judge in judges():
        error = min(judge.series("test/error")[1])
        count = sum(table["total"] for table in judge.summary["networks"].values())
        data = judge.recipe.data
        images = f"{Path(data.path).name or data.source}, {data.size}x{data.size}"
        rows.append(f"| `{judge.recipe.name}` | {images} | {1 - error:.1%} | {count:,} |\n")
    return MEASURES + "".join(lines) + JUDGES + "".join(rows) + STUDIES


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
        "`[networks.NAME]`": NetworkOptions,
    }
    sections |= {
        f'`[training.optimizer]` with `name = "{name}"`: {kind.description}': kind.Options
        for name, kind in OPTIMIZERS.items()
    }
    sections |= {
        f'`[training.schedule]` with `name = "{name}"`: {kind.description}': kind for name, kind in SCHEDULES.items()
    }
    sections |= {f'`[model]` with `name = "{name}"`': cls.Options for name, cls in MODELS.items()}
    parts += [f"\n## {title}\n\n{rows(schema)}\n" for title, schema in sections.items()]
    words = inspect.getdoc(layers) or ""
    parts.append("\n## Layer specs\n\n" + words.partition("\n\n")[2] + "\n")
    return "".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("recipes.md").write_text(render(), "utf-8")
    Path(__file__).with_name("figures.md").write_text(render_figures(), "utf-8")
    Path(__file__).with_name("measures.md").write_text(render_measures(), "utf-8")
