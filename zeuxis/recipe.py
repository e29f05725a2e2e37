"""A recipe: the typed, validated description of a run.

A recipe is a TOML file with four parts: `data` (which images, at what size), `model` (which model, with
its options), `networks` (its layers) and `training` (for how long, with which optimiser). It may extend
another recipe and override some of its keys. A run folder contains the resolved recipe: everything needed
to train it again.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from shlex import quote
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from zeuxis.errors import UserError, closest, nearest, one_of, quoted, shown
from zeuxis.files import PACKED, exists, is_name, name_fault, why
from zeuxis.plugins import FOLDER, Plugin, load_plugins, read_plugin
from zeuxis.trust import NOTHING, Call, Code, Trust, made_here

__all__ = [
    "Choice",
    "DataOptions",
    "Interval",
    "ModelChoice",
    "NetworkOptions",
    "OptimizerChoice",
    "OptimizerOptions",
    "Recipe",
    "ScheduleChoice",
    "Section",
    "Size",
    "TrainingOptions",
    "explain",
    "flat",
    "load_recipe",
    "parse_override",
    "parse_overrides",
    "recipe_names",
    "run_recipe",
    "together",
]

# Limits of a recipe file; the largest in the package has 4,000 bytes and tables nested four deep.
MOST_BYTES, DEEPEST, LONGEST_CHAIN = 2**20, 20, 10
# Attributes that may be combined into classes: 6 give 2^6 classes.
MOST_ATTRIBUTES = 6
# Shortest and longest side of images; the kinds of images by their channels.
SIDES = (4, 2048)
KINDS = {1: "grey", 3: "colour", 4: "colour with transparency"}
# The largest seed that every random generator accepts.
LAST_SEED = 2**63 - 1
S = TypeVar("S", bound=BaseModel)


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, numbers are finite, values cannot change once validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=4096)

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses true, false and quoted numbers for numbers, and words for true and false: pydantic converts them."""
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = set(get_args(kind) or (kind,)) - {NoneType}
        disguised = isinstance(value, bool) or (isinstance(value, str) and _is_numeric(value))
        if disguised and kinds and kinds <= {int, float}:
            raise ValueError(f"this should be {'a whole number' if kinds == {int} else 'a number'}, not {shown(value)}")
        if kinds == {bool} and not isinstance(value, bool):
            raise ValueError(f"this should be true or false, not {shown(value)}")
        return value


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Size(NamedTuple):
    """Width and height of images in pixels; a recipe says `96`, or `"96x64"` with the width first."""

    width: int
    height: int

    @classmethod
    def of(cls, value: Any) -> Size:
        """Returns the size that a setting names: a side, `WIDTHxHEIGHT`, or a size.

        Raises:
            ValueError: for anything else, and for a side that is not in 4..2048.
        """
        text = str(value) if isinstance(value, Size | str) else shown(value)
        match = re.fullmatch("([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", text)
        size = cls(int(match[1]), int(match[2] or match[1])) if match else cls(0, 0)
        if min(size) < SIDES[0] or max(size) > SIDES[1]:
            raise ValueError(
                f"a size should be a side of {SIDES[0]} to {SIDES[1]} pixels, such as 96, or width x height, such as "
                f"'96x64', not {shown(value)}"
            )
        return size

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def setting(self) -> int | str:
        """The size as a recipe says it."""
        return self.width if self.width == self.height else str(self)


class DataOptions(Section):
    """Which images to train on, and how they are loaded."""

    source: str = Field("digits", description="name of a data source; `zeuxis data` lists them")
    path: str = Field("", description="folder, zip, .npy or .npz, for sources that read one")
    size: Annotated[Size, PlainValidator(Size.of), PlainSerializer(lambda size: size.setting)] = Field(
        Size(28, 28), description="a side in pixels, such as `96`, or width x height, such as `'96x64'`"
    )
    channels: Literal[1, 3, 4] = Field(1, description="1 for grey, 3 for colour, 4 for colour and transparency")
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop",
        description="for images of another shape: use the middle, put the whole on `background`, or change the shape",
    )
    background: str = Field("#ffffff", description="colour behind transparent images and beside padded ones, #rrggbb")
    range: Literal["0..1", "-1..1"] = Field("0..1", description="range of pixel values that the networks see")
    classes: list[str] = Field([], description="train only on these classes; empty for all")
    attribute: str = Field("", description="binary attribute to use as the class, or several, separated by commas")
    numbers: list[str] = Field(
        [], max_length=100, description="numeric columns that a conditional model is given in place of the class"
    )
    flip: bool = Field(False, description="mirror half of the training images")
    convert: bool = Field(False, description="turn colour images grey, or grey ones into colour")
    options: dict[str, Any] = Field({}, description="options of the source, if it has any")
    loading: Literal["decode", "batch"] = Field(
        "decode", description="decode images to `size`, or to `source_size` and down-sample each batch"
    )
    source_size: int = Field(256, ge=4, le=2048, description="longer side of decoded images with `loading = 'batch'`")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of images held out if no split is published")
    split_seed: int = Field(0, ge=0, le=LAST_SEED, description="seed of that split, independent of the training seed")

    @field_validator("classes", "attribute")
    @classmethod
    def _composed(cls, value: list[str] | str) -> list[str] | str:
        """Normalises names to NFC, as the data has them; file names on a Mac are decomposed."""
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value)
        return [unicodedata.normalize("NFC", name) for name in value]

    @property
    def attributes(self) -> list[str]:
        """The names in `attribute`, as a list."""
        return [name.strip() for name in self.attribute.split(",") if name.strip()]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image as the networks see it, `(C, H, W)`."""
        return (self.channels, self.size.height, self.size.width)

    @property
    def stored_size(self) -> Size:
        """Size of the images in the cache."""
        if self.loading == "decode":
            return self.size
        return Size(*(round(side * self.source_size / max(self.size)) for side in self.size))

    @property
    def in_words(self) -> str:
        """Size and kind of the images in words, such as `"28x28 grey"`."""
        return f"{self.size} {KINDS[self.channels]}"

    @field_validator("background")
    @classmethod
    def _is_colour(cls, text: str) -> str:
        if not re.fullmatch("#[0-9a-fA-F]{6}", text):
            raise ValueError(f"{shown(text)} is not a colour; write it as '#rrggbb', such as '#ffffff' for white")
        return text.lower()

    @model_validator(mode="after")
    def _attributes_are_few(self) -> DataOptions:
        if len(self.attributes) > MOST_ATTRIBUTES or len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"data.attribute may name at most {MOST_ATTRIBUTES} attributes, each once")
        return self

    @model_validator(mode="after")
    def _one_condition(self) -> DataOptions:
        if self.numbers and self.attribute:
            raise ValueError("give either data.numbers or data.attribute, not both")
        if len(set(self.numbers)) < len(self.numbers):
            raise ValueError("data.numbers may name each column once")
        return self

    @model_validator(mode="after")
    def _down_samples(self) -> DataOptions:
        if self.loading == "batch" and self.source_size < max(self.size):
            raise ValueError(f"source_size ({self.source_size}) is smaller than size ({self.size})")
        if self.loading == "batch" and self.channels == 4:
            raise ValueError("transparent images are scaled as they are decoded; set data.loading to 'decode'")
        return self


class Choice(BaseModel):
    """The name of a registry entry, and its options, which the entry's own schema validates."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, str_max_length=4096)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """All options but the name."""
        return self.model_dump(exclude={"name"})

    def read(self, schema: type[S], where: str, key: str) -> S:
        """Returns the options, validated by a schema.

        Args:
            schema: the options that the registry entry takes.
            where: what they belong to, for messages, such as `"Recipe NAME"`.
            key: their key in it, such as `"training.optimizer"`.

        Raises:
            UserError: for unknown options and wrong values.
        """
        try:
            return schema.model_validate(self.options)
        except ValidationError as error:
            raise explain(error, where, schema, key) from None

    def completed(self, options: BaseModel) -> Self:
        """Returns a copy with all options, including defaults, written out."""
        return type(self).model_validate({"name": self.name, **options.model_dump(mode="json")})


class ModelChoice(Choice):
    """Which model; its options are those of `Model.Options`."""


class OptimizerOptions(Section):
    """Options that all optimisers share; each may have more."""

    learning_rate: float = Field(1e-3, gt=0, le=100)
    weight_decay: float = Field(0.0, ge=0, le=100)
    decay: Literal["all", "weights"] = Field(
        "all", description="which parameters decay: all, or all but biases and normalisation scales"
    )
    clip: float = Field(0.0, ge=0, le=1e9, description="largest norm of a phase's gradient; 0: no limit")


class OptimizerChoice(OptimizerOptions, Choice):
    """Which optimiser; `zeuxis.training.optimizers` defines further options."""

    model_config = Choice.model_config

    name: str = "adamw"


class ScheduleChoice(Choice):
    """Which learning-rate schedule; `zeuxis.training.schedules` defines its options."""

    name: str = "constant"


# A choice, or just its name; saved as its name if it has no options.
Named = Annotated[
    Choice,
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
    PlainSerializer(lambda choice: choice.model_dump() if choice.options else choice.name),
]
Layers = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=1000)]


class NetworkOptions(Section):
    """A network: a list of layer specs, or the dotted path of the user's own module."""

    layers: Layers = Field([], description="layer specs from input to output")
    heads: dict[str, Layers] = Field({}, max_length=100, description="named outputs that share `layers`")
    init: Literal["glorot", "he", "dcgan", "torch"] = Field(
        "glorot", description="initial weights; 'dcgan' is normal with standard deviation 0.02"
    )
    spectral_norm: bool = Field(
        False, description="apply spectral normalisation to every dense and convolutional layer"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate after every activation inside `layers`")
    embedding: int = Field(128, ge=1, le=10_000, description="width of the embedding that modulates layers with `film`")
    recompute: bool = Field(
        False, description="compute what is inside blocks again in the backward pass: less memory, more time"
    )
    module: str = Field(
        "",
        pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)+)?$",
        max_length=200,
        description="`package.module.Class`, called with `arguments`",
    )
    arguments: dict[str, Any] = Field({}, description="keyword arguments of `module`")

    @model_validator(mode="after")
    def _either(self) -> NetworkOptions:
        if (self.layers or self.heads) and self.module:
            raise ValueError("a network has either layers or a module, not both")
        if not (self.layers or self.heads or self.module):
            raise ValueError("a network needs layers, such as ['dense 64', 'relu'], or a module of your own")
        return self

    @property
    def call(self) -> Call | None:
        """The module that would be imported and called; None for a network of layers."""
        return Call(self.module, self.arguments) if self.module else None


_INTERVAL = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) (epoch|step|minute)s?")


class Interval(str):
    """`"10 epochs"`, `"500 steps"`, `"2 minutes"`, or `"never"`."""

    @property
    def parts(self) -> tuple[float, str]:
        """Count and unit; `(inf, "step")` for `"never"`."""
        match = _INTERVAL.fullmatch(self)
        return (float(match[1]), match[2]) if match else (float("inf"), "step")


class TrainingOptions(Section):
    """How long to train, with which optimiser, and what to save during training."""

    epochs: float | None = Field(None, gt=0, le=1e6, description="passes over the training images")
    steps: int | None = Field(None, gt=0, le=10**9, description="iterations, each through all phases of the model")
    minutes: float | None = Field(None, gt=0, le=1e6, description="time in the training loop")
    batch_size: int = Field(128, ge=1, le=10**6)
    accumulate: int = Field(1, ge=1, le=10_000, description="batches whose gradients are averaged into one update")
    seed: int = Field(0, ge=0, le=LAST_SEED, description="seed of weights, batches, latents and snapshots")
    optimizer: OptimizerChoice = Field(OptimizerChoice(), description="optimiser of every phase")
    optimizers: dict[str, OptimizerChoice] = Field({}, description="what differs from that in single phases")
    schedule: ScheduleChoice = Field(ScheduleChoice(), description="schedule of every phase's learning rate")
    callbacks: list[Named] = Field([], max_length=100, description="names of callbacks that take part in training")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the generating networks' weight average; 0: none")
    log_every: int = Field(10, ge=1, le=10**9, description="steps averaged into one journal line")
    snapshot_every: str = Field("1 epoch", description="how often images of fixed latents are saved")
    checkpoint_every: str = Field("1 epoch", description="how often a checkpoint to resume from is saved")
    test_every: str = Field("1 epoch", description="how often the model is tested on the test set")
    best: str = Field("", description="test term, or `fid`, whose lowest value marks the best checkpoint")
    until: str = Field("", description="as `best`; training also stops when the value no longer falls")
    patience: int = Field(
        5, ge=1, le=10**9, description="successive tests without improvement before `until` stops training"
    )
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "auto",
        description="of matrix products in training; all else is float32; auto: bfloat16 if the hardware has it, "
        "float16 with scaled losses on GPUs that only have that",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="CPU threads; auto: as many as run fastest; a number: results repeat bit for bit"
    )
    capture: bool = Field(False, description="on an NVIDIA GPU: capture an iteration as a CUDA graph and replay it")
    device: str = Field("auto", description="cpu, cuda, mps or auto, the fastest one available")

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, keys: Any) -> Any:
        """Accepts `record_every`, the name of `log_every` in older runs."""
        if isinstance(keys, dict) and "record_every" in keys:
            keys = {"log_every": keys["record_every"]} | {k: v for k, v in keys.items() if k != "record_every"}
        return keys

    @model_validator(mode="before")
    @classmethod
    def _shared_optimizer(cls, keys: Any) -> Any:
        """Gives the optimiser of a phase what it does not say itself from the shared one, if it is of the same kind."""
        if not isinstance(keys, dict):
            return keys
        shared, phases = keys.get("optimizer"), keys.get("optimizers")
        if not isinstance(shared, dict) or not isinstance(phases, dict):
            return keys
        kind = shared.get("name", OptimizerChoice().name)

        def completed(own: Any) -> Any:
            return {**shared, **own} if isinstance(own, dict) and own.get("name", kind) == kind else own

        return keys | {"optimizers": {phase: completed(own) for phase, own in phases.items()}}

    @field_validator("snapshot_every", "checkpoint_every", "test_every")
    @classmethod
    def _interval(cls, text: str) -> str:
        if text != "never" and (not (m := _INTERVAL.fullmatch(text)) or float(m[1]) == 0):
            raise ValueError(
                f"'{quoted(text)}' is not an interval; write '10 epochs', '500 steps', '2 minutes' or 'never'"
            )
        return text

    @field_validator("device")
    @classmethod
    def _known_device(cls, name: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,2})?", name):
            raise ValueError(f"the device {shown(name)} cannot be used; write cpu, cuda, mps or auto")
        return name

    @property
    def watched(self) -> str:
        """The test term that marks the best checkpoint; "" for none."""
        return self.until or self.best

    @property
    def budget(self) -> tuple[str, float]:
        """What the training is counted in, epochs, steps or minutes, and how many of them it lasts."""
        unit = next(name for name in BUDGETS if getattr(self, name) is not None)
        return unit, getattr(self, unit)

    def used(self, counters: Mapping[str, Any]) -> float:
        """How much of the budget is used, in its unit, at the `epoch`, `step` and `seconds` of a journal line."""
        used: dict[str, float] = {
            "epochs": counters["epoch"], "steps": counters["step"], "minutes": counters["seconds"] / 60,
        }  # fmt: skip
        return used[self.budget[0]]

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingOptions:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) != 1:
            raise ValueError(f"give exactly one of epochs, steps and minutes, not {' and '.join(budgets) or 'none'}")
        return self


BUDGETS = ("epochs", "steps", "minutes")


def budget_settings(epochs: float | None, steps: int | None, minutes: float | None) -> dict[str, float]:
    """Returns the settings of a budget that is given in one of three ways, or in none."""
    given = zip(BUDGETS, (epochs, steps, minutes), strict=True)
    return {f"training.{name}": value for name, value in given if value is not None}


class Recipe(Section):
    """The complete description of a run."""

    name: str
    description: str = ""
    plugins: list[str] = Field(
        [], max_length=100, description="Python files beside the recipe that register what it names"
    )
    origin: str = Field("", description="where the system was first described")
    standard: bool = Field(False, description="whether it is its model's default recipe for data of its kind")
    data: DataOptions
    model: ModelChoice
    networks: dict[str, NetworkOptions]
    training: TrainingOptions

    # Which code may run. Not part of the recipe's text, which cannot vouch for itself.
    _trust: Trust = PrivateAttr(NOTHING)
    _code: tuple[Plugin, ...] = PrivateAttr(())

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if fault := name_fault(name):
            raise ValueError(f"{shown(name)} cannot name the folder of a run: {fault}")
        return name

    @property
    def trust(self) -> Trust:
        """Which of the modules that it names may be imported; none by default."""
        return self._trust

    def trusting(self, trust: Trust) -> Recipe:
        """Returns a copy whose modules may be imported as far as `trust` allows."""
        copy = self.model_copy()
        copy._trust = trust
        return copy

    @property
    def code(self) -> tuple[Plugin, ...]:
        """The files of its plugins."""
        return self._code

    def with_code(self, plugins: Iterable[Plugin]) -> Recipe:
        """Returns a copy with these plugins; does not run them.

        Raises:
            UserError: if two different plugins have the same name.
        """
        by_name: dict[str, Plugin] = {}
        for plugin in plugins:
            if by_name.setdefault(plugin.name, plugin) != plugin:
                raise UserError(f"Recipe {self.name} has two different plugins called '{quoted(plugin.name)}'.")
        copy = self.model_copy(update={"plugins": list(by_name)})
        copy._code = tuple(by_name.values())
        return copy

    @property
    def calls(self) -> list[Code]:
        """The code that would be imported and run to use the recipe."""
        return [*self.code, *(network.call for network in self.networks.values() if network.call)]

    def to_toml(self) -> str:
        """Returns the recipe as TOML that `load_recipe` reads back to an equal recipe."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=False)

    def updated(self, overrides: Mapping[str, Any]) -> Recipe:
        """Returns a copy with some keys replaced; it trusts the same code.

        Args:
            overrides: values by dotted key, such as `{"training.batch_size": 64}`; a table changes the keys it has,
                and a network's replaces the network.

        Raises:
            UserError: for unknown keys and wrong values, naming the key.
        """
        changed = _validated(_overridden(self.model_dump(exclude_none=True), together(overrides)))
        return changed.with_code(self.code).trusting(self.trust)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of a nested mapping by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with the package, sorted."""
    folder = resources.files("zeuxis") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(
    name: str | Path,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    trust: Trust = NOTHING,
    plugins: Sequence[str | Path] = (),
) -> Recipe:
    """Reads a recipe by name or from a TOML file, follows `extends`, applies overrides, validates, loads plugins.

    Code is trusted if the file itself, an override or `plugins` names it; not if it is inherited, or if the file
    belongs to a run.

    Args:
        name: a name from `recipe_names()`, or the path of a TOML file.
        overrides: `{"training.batch_size": 64}` or `["training.batch_size=64"]`; a table changes the keys it has,
            and a network's replaces the network.
        trust: which further code may run.
        plugins: files of further plugins.

    Raises:
        UserError: for unknown names, unreadable files, unknown keys, wrong values, and plugins that are not trusted.
    """
    real = _real(str(name))
    if real and _is_run(real):
        return run_recipe(real.parent, overrides, trust=trust, plugins=plugins)
    tree, own = _read(str(name), ())
    overrides, plugins = _parsed(overrides, plugins)
    mine = Trust.of(_calls(_overridden(own, overrides)))
    mine |= Trust.of(_plugins(own, f"The recipe {quoted(str(name))}"))
    return _loaded(tree, overrides, plugins, lambda recipe: trust | mine)


def run_recipe(
    folder: Path,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    trust: Trust = NOTHING,
    plugins: Sequence[str | Path] = (),
) -> Recipe:
    """Reads a run's recipe; its code is trusted if this user made the run here, or if an override names it.

    Args:
        folder: the run folder.
        overrides: as in `load_recipe`.
        trust: which further code may run.
        plugins: as in `load_recipe`.

    Raises:
        UserError: as `load_recipe`.
    """
    overrides, plugins = _parsed(overrides, plugins)
    tree, _ = _read(str(folder / "recipe.toml"), ())
    mine = Trust.of(_calls(_overridden({}, overrides)))
    return _loaded(tree, overrides, plugins, lambda recipe: trust | mine | made_here(folder, recipe.calls))


def _loaded(
    tree: dict[str, Any],
    overrides: Mapping[str, Any],
    plugins: Sequence[str | Path],
    trust_in: Callable[[Recipe], Trust],
) -> Recipe:
    """Validates a recipe's tree of tables, and runs its plugins if they are trusted."""
    where = _named(tree)
    further_plugins = [read_plugin(Path(path), where) for path in plugins]
    code = [*_plugins(tree, where), *further_plugins]
    recipe = _validated(_overridden(tree, overrides) | {"plugins": []}).with_code(code)
    trust = trust_in(recipe) | Trust.of(further_plugins)
    for plugin in recipe.code:
        trust.require(plugin, f"recipe {recipe.name}")
    load_plugins(recipe.code)
    return recipe.trusting(trust)


def _plugins(tree: Mapping[str, Any], where: str) -> list[Plugin]:
    """Reads the plugins that a tree names."""
    paths = tree.get("plugins", [])
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UserError(f"{where}: plugins should be a list of files, such as ['mine.py'], not {shown(paths)}.")
    return [read_plugin(Path(path), where) for path in paths]


# Files beside a recipe that show that it belongs to a run.
BESIDE = ("environment.json", "journal.jsonl", "checkpoints")


def _is_run(path: Path) -> bool:
    """Whether a recipe's file belongs to a run."""
    return path.name == "recipe.toml" and any((path.parent / file).exists() for file in BESIDE)


def parse_override(text: str) -> tuple[str, Any]:
    """Parses `KEY=VALUE`; a value that is not valid TOML is taken as text.

    Raises:
        UserError: if the key or the equals sign is missing, or the value is nested too deep.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")) or key.count(".") > DEEPEST:
        raise UserError(f"{shown(text)} is not an override; write KEY=VALUE, such as training.batch_size=64.")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except RecursionError as error:
        raise UserError(f"The value of {quoted(key)} is nested too deep.") from error
    except ValueError:  # not TOML, or a number of thousands of digits
        return key, value.strip()
    _require_plain(parsed, f"The value of {quoted(key)}")
    # More than one value, such as a second line, is text.
    return key, parsed["value"] if len(parsed) == 1 else value.strip()


def parse_overrides(texts: Iterable[str] | None) -> dict[str, Any]:
    """Parses several `KEY=VALUE`, as `parse_override` and `together`."""
    return together(*({key: value} for key, value in map(parse_override, texts or ())))


def together(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings from several places by dotted key: those of a table one by one, and a network as a whole.

    Raises:
        UserError: for a key that is given two values, or none.
    """
    settings: dict[str, Any] = {}
    budgets = {f"training.{name}" for name in BUDGETS}  # which None takes from a recipe
    for key, value in (pair for part in parts for pair in _one_by_one(part)):
        if value is None and key not in budgets:
            raise UserError(f"{quoted(key)} is given as None, which is no value; leave it out to keep the recipe's.")
        if key in settings and settings[key] != value:
            raise UserError(f"{quoted(key)} is given twice: {shown(settings[key])} and {shown(value)}. Give it once.")
        settings[key] = value
    return settings


def _one_by_one(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        whole = f"{prefix}{key}".split(".")
        if isinstance(value, Mapping) and not (whole[0] == "networks" and len(whole) > 1):
            yield from _one_by_one(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def explain(
    error: ValidationError, where: str, schema: type[BaseModel], prefix: str = "", known: Sequence[str] = ()
) -> UserError:
    """Turns pydantic's errors into sentences that name the recipe, the key and the nearest valid key.

    Args:
        error: what pydantic found.
        where: what was validated, such as `"Recipe NAME"`.
        schema: its schema.
        prefix: its dotted key, if it is a part.
        known: dotted keys that an unknown one may have been meant for, most likely first.
    """
    sentences = []
    findings = error.errors(include_url=False)
    # Of a value that may be of several types, there is a finding for each type that it is not, which ends in the type.
    places = [[str(part) for part in item["loc"] if not TYPE.fullmatch(str(part))] for item in findings]
    for item, loc in list(zip(findings, places, strict=True))[:MOST_FINDINGS]:
        key = quoted(".".join([*([prefix] if prefix else []), *loc]))
        if item["type"] == "extra_forbidden":
            valid = _fields(schema, loc[:-1])
            sentences.append(f"{where} has no key '{key}'.{_nearest_key(key, valid, known)}")
        elif item["type"] == "missing" and isinstance(item["loc"][-1], int):
            sentences.append(f"{where}: {key.rpartition('.')[0]} should have {item['loc'][-1] + 1} values or more.")
        elif item["type"] == "missing":
            sentences.append(f"{where} lacks the key '{key}'.")
        elif item["type"] == "value_error":
            message = str(item["ctx"]["error"])
            end = "" if message.endswith((".", "?")) else "."
            sentences.append(f"{where}{f': {key}' if key else ''}: {message}{end}")
        else:
            wanted = [expected(other) for other, place in zip(findings, places, strict=True) if place == loc]
            sentences.append(
                f"{where}: {key} should be {' or '.join(dict.fromkeys(wanted))}, not {shown(item['input'])}."
            )
    if len(findings) > MOST_FINDINGS:
        sentences.append(f"There are {len(findings) - MOST_FINDINGS} more such mistakes.")
    return UserError(" ".join(dict.fromkeys(sentences)))


def expected(finding: Mapping[str, Any]) -> str:
    """Returns what a value should be, such as "a whole number", from one of pydantic's findings."""
    wanted = WANTED.get(finding["type"], "{message}").format(message=finding["msg"], **finding.get("ctx", {}))
    return "a list" if wanted == "a Sequence" else wanted


def _nearest_key(key: str, valid: Sequence[str], known: Sequence[str]) -> str:
    """Returns a hint at the key that was meant: ours for a name of other programs, one of this name elsewhere, one
    beside it, or one much like it elsewhere."""
    section, _, last = key.rpartition(".")
    ours = OF_OTHERS.get(last.casefold(), "")
    place, _, name = ours.rpartition(".")
    if ours and (place != section or name in valid):
        return f" Did you mean '{ours}'?"
    elsewhere: dict[str, str] = {}
    for other in known:
        if other != key:
            elsewhere.setdefault(other.rpartition(".")[2], other)
    found = elsewhere.get(last) or closest(last, valid) or elsewhere.get(closest(last, elsewhere, LIKE) or "")
    return f" Did you mean '{found}'?" if found else nearest(last, valid)


# A type in the location of a finding: pydantic's words for one of several that a value may have.
TYPE = re.compile(r"(constrained-)?(int|float|str|bool)|[a-z-]+\[.*\]")
# How like a key elsewhere must be to be the one that was meant.
LIKE = 0.8
# Names of settings in other programs.
OF_OTHERS = {
    **dict.fromkeys(("lr", "learningrate"), "training.optimizer.learning_rate"),
    **dict.fromkeys(("bs", "batch", "minibatch"), "training.batch_size"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs"), "training.epochs"),
    **dict.fromkeys(("num_steps", "max_steps", "iterations", "max_iter", "kimg"), "training.steps"),
    **dict.fromkeys(("gpu", "gpus", "cuda", "accelerator"), "training.device"),
    **dict.fromkeys(("amp", "fp16", "bf16", "dtype", "mixed_precision"), "training.precision"),
    **dict.fromkeys(("early_stopping", "early_stop"), "training.until"),
    **dict.fromkeys(("save_every", "save_freq"), "training.checkpoint_every"),
    **dict.fromkeys(("gradient_accumulation", "grad_accum", "accumulate_grad_batches"), "training.accumulate"),
    **dict.fromkeys(("grad_clip", "gradient_clip", "clip_grad"), "training.optimizer.clip"),
    **dict.fromkeys(("resolution", "image_size", "img_size", "imsize", "width", "height"), "data.size"),
    **dict.fromkeys(("dataset", "dataroot", "data_dir", "root"), "data.source"),
    **dict.fromkeys(("latent_dim", "z_dim", "zdim", "nz", "latent_size", "z"), "model.latent"),
    **dict.fromkeys(("beta", "kl", "kld_weight"), "model.kl_weight"),
    **dict.fromkeys(("cfg", "cfg_scale", "guidance_scale"), "model.guidance"),
}  # fmt: skip
# How many mistakes one message names.
MOST_FINDINGS = 5
# What a value should be, by pydantic's error type.
WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "string_pattern_mismatch": "package.module.Class",
    "string_too_long": "at most {max_length} letters long",
    "string_type": "text",
    "too_long": "at most {max_length} long",
    "too_short": "at least {min_length} long",
    "tuple_type": "a list",
    # Of the arguments of functions.
    "is_instance_of": "a {class}",
    "iterable_type": "a list",
    "sequence_str": "a list",
}


def _fields(schema: type[BaseModel], path: list[str]) -> list[str]:
    """Returns the valid keys below `path` in a schema; skips parts that are free names, such as a network's."""
    for part in path:
        if part in schema.model_fields:
            annotation = schema.model_fields[part].annotation
            inner = [annotation, *getattr(annotation, "__args__", ())]
            schema = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), schema)
    return list(schema.model_fields)


def _parsed(
    overrides: Mapping[str, Any] | Iterable[str], plugins: Sequence[str | Path]
) -> tuple[dict[str, Any], list[Path]]:
    """Returns overrides by dotted key, and all plugins; overrides may name some."""
    parsed = together(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    more = parsed.pop("plugins", [])
    if not isinstance(more, list) or not all(isinstance(path, str) for path in more):
        raise UserError(f"plugins should be a list of files, such as ['mine.py'], not {shown(more)}.")
    return parsed, [*map(Path, plugins), *map(Path, more)]


def _overridden(raw: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    tree = _merged(raw, {})
    budgets = [name for name in BUDGETS if overrides.get(f"training.{name}") is not None]
    if len(budgets) > 1:
        raise UserError(f"{_named(raw)}: give one of epochs, steps and minutes, not {' and '.join(budgets)}.")
    for key in overrides.keys() & CHOICES.keys():  # before the options of the new choice are set
        _rename(tree, key, overrides[key])
    for key, value in overrides.items():
        *path, last = key.split(".")
        node = tree
        for depth, part in enumerate(path):
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{_named(raw)}: {quoted('.'.join(path[: depth + 1]))} is a value and has no keys.")
        if path == ["training"] and last in BUDGETS and value is not None:
            for other in BUDGETS:
                node.pop(other, None)
        node[last] = value
    return tree


# Keys that choose something with options of its own, and their defaults.
CHOICES = {"model.name": "", "training.optimizer.name": "adamw", "training.schedule.name": "constant"}


def _rename(tree: dict[str, Any], key: str, name: Any) -> None:
    """Drops the options in a tree that belong to a choice other than `name`."""
    for part in key.split(".")[:-1]:
        tree = _table(tree, part)
    if tree.get("name", CHOICES[key]) not in (name, ""):
        tree.clear()


def _read(name: str, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a recipe; returns it merged with what it extends, and the content of its own file."""
    where = f"The recipe {quoted(name)}"
    packaged = name in recipe_names()
    real = name if packaged else str(_real(name) or name)
    if real in seen or len(seen) >= LONGEST_CHAIN:
        raise UserError(f"{where} extends itself, or more than {LONGEST_CHAIN} others one after another.")
    if packaged:
        content = (resources.files("zeuxis") / "recipes" / f"{name}.toml").read_bytes()
    elif name.endswith(".toml") or (_real(name) and not _holds_images(Path(name))):
        content = _content(name, where)
    else:
        if images := next(filter(_holds_images, (Path(name), Path(f"{name}.zip"))), None):
            kind = "folder" if images.is_dir() else "file"
            command = f"zeuxis train --data {quote(str(images))}"
            raise UserError(f"There is no recipe '{quoted(name)}', but a {kind} of this name: {command}.")
        if exists(Path(name)) and _is_run(Path(name) / "recipe.toml"):
            raise UserError(f"'{quoted(name)}' is a run, not a recipe; zeuxis resume {quote(name)} trains it on.")
        written = [f"{name}.toml"] if _real(f"{name}.toml") else []
        raise one_of("recipe", name, [*written, *recipe_names()])
    try:
        own = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text.") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deep.") from error
    except ValueError as error:  # also a number of thousands of digits
        raise UserError(f"{where} is not valid TOML: {quoted(str(error), 200)}.") from error
    _require_plain(own, where)
    own.setdefault("name", Path(name).stem)
    if isinstance(own.get("plugins"), list):
        # Plugins are beside the recipe; in a run, they have a folder of their own.
        folder = Path(real).parent / (FOLDER if _is_run(Path(real)) else "")
        own["plugins"] = [str(folder / path) if isinstance(path, str) else path for path in own["plugins"]]
    parent = own.pop("extends", None)
    if parent is None:
        return own, own
    if not isinstance(parent, str) or not parent:
        raise UserError(f"{where}: extends must be the name of one recipe, not {shown(parent)}.")
    beside = str(Path(name).parent / parent)
    if parent.endswith(".toml") and not any(exists(Path(file)) for file in (beside, parent)):
        raise UserError(f"{where} extends '{quoted(parent)}', and there is no such file: {quoted(beside, 200)}.")
    inherited, _ = _read(beside if exists(Path(beside)) else parent, (*seen, real))
    for key in ("name", "standard"):
        inherited.pop(key, None)
    training, model = _table(inherited, "training"), _table(inherited, "model")
    if any(budget in _table(own, "training") for budget in BUDGETS):
        for budget in BUDGETS:
            training.pop(budget, None)
    model_before = model.get("name")
    named = flat(own)
    for key in CHOICES:
        if key in named:
            _rename(inherited, key, named[key])
    if model.get("name") != model_before:  # another model has other phases
        training.pop("optimizers", None)
    for part, network in _table(own, "networks").items():
        if isinstance(network, dict) and "layers" in network:  # heads belong to the layers that are replaced
            _table(_table(inherited, "networks"), part).pop("heads", None)
    return _merged(inherited, own), own


def _real(name: str) -> Path | None:
    """Returns a file's path with links resolved; None if there is no such file."""
    return Path(name).resolve() if exists(Path(name)) and Path(name).is_file() else None


def _holds_images(path: Path) -> bool:
    """Whether there is a folder or a file that may hold images, and is no run."""
    if not exists(path):
        return False
    return not exists(path / "recipe.toml") if path.is_dir() else path.suffix.lower() in PACKED


def _content(name: str, where: str) -> bytes:
    """Reads a recipe file's bytes; refuses anything but a regular file, and files too large for a recipe."""
    try:
        if exists(Path(name)) and not Path(name).is_file():  # reading a pipe or a device might never end
            raise UserError(f"{where} cannot be read: it is not a file.")
        with Path(name).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise UserError(f"{where} cannot be read: {why(error)}.") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{where} cannot be read: it is larger than {MOST_BYTES:,} bytes.")
    return content


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns a table of a tree; an empty one if there is none, or the value is not a table."""
    table = tree.get(key)
    return table if isinstance(table, dict) else {}


def _calls(tree: dict[str, Any]) -> list[Call]:
    """Returns the modules that a tree names to be imported and called; the tree may be invalid."""
    networks = [table for name in _table(tree, "networks") if (table := _table(tree["networks"], name))]
    return [
        Call(table["module"], table.get("arguments", {}))
        for table in networks
        if isinstance(table.get("module"), str) and isinstance(table.get("arguments", {}), dict)
    ]


def _require_plain(tree: dict[str, Any], where: str) -> None:
    """Raises a `UserError` for tables nested deeper than any recipe needs, and for text that no file can hold."""
    level: list[Any] = [tree]
    for _ in range(DEEPEST):
        for text in (item for item in level if isinstance(item, str)):
            if "\0" in text or text.encode("utf-8", "replace").decode() != text:
                raise UserError(f"{where} contains {shown(text)}, which is not valid text.")
        level = [
            inner
            for item in level
            if isinstance(item, dict | list | tuple)
            for inner in ([*item, *item.values()] if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise UserError(f"{where} is nested too deep.")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merges tables deeply; any other value in `over` replaces that in `base`."""
    result = {key: _merged(value, {}) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _named(raw: Mapping[str, Any]) -> str:
    name = raw.get("name")
    return f"Recipe {name}" if isinstance(name, str) and is_name(name) else "The recipe"


def _validated(raw: dict[str, Any]) -> Recipe:
    _require_plain(raw, _named(raw))
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise explain(error, _named(raw), Recipe, known=_keys(raw)) from None


def _keys(tree: dict[str, Any]) -> list[str]:
    """Returns the dotted keys that a recipe may have, short ones first: its own, and those of recipes of its model."""
    sections: dict[str, type[Section]] = {
        "data": DataOptions,
        "training": TrainingOptions,
        "training.optimizer": OptimizerOptions,
    }
    keys = {f"{section}.{name}" for section, schema in sections.items() for name in schema.model_fields}
    model = _table(tree, "model").get("name")
    keys |= {f"networks.{name}.{key}" for name in _table(tree, "networks") for key in NetworkOptions.model_fields}
    others = [_read(name, ())[0] for name in recipe_names()]
    for part, trees in {"networks": [tree], "model": [tree, *others], "training": [tree]}.items():
        tables = [_table(each, part) for each in trees if _table(each, "model").get("name") == model]
        keys |= {key for table in tables for key in flat(table, f"{part}.")}
    keys |= {key.rpartition(".")[0] for key in keys}
    return sorted(keys, key=lambda key: (key.count("."), key))
