"""A recipe: the typed, validated description of a run.

A recipe is a TOML file with four parts: `data` (which images, at what size), `model` (which model, with
its options), `networks` (its layers) and `training` (for how long, with which optimiser). It may extend
another recipe and override what differs. A run folder holds the resolved recipe: everything needed to
run it again.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zeuxis.errors import UserError, nearest, one_of
from zeuxis.files import exists

__all__ = [
    "DataOptions",
    "Interval",
    "ModelChoice",
    "NetworkOptions",
    "OptimizerOptions",
    "Recipe",
    "Section",
    "TrainingOptions",
    "explain",
    "flat",
    "load_recipe",
    "parse_override",
    "recipe_names",
]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values cannot change once validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataOptions(Section):
    """Which images, and how they reach the networks."""

    source: str = Field("digits", description="name of a data source; `zeuxis data` lists them")
    path: str = Field("", description="folder, zip, .npy or .npz, for the sources that read one")
    size: int = Field(28, ge=4, le=2048, description="images are size x size pixels")
    channels: Literal[1, 3] = Field(1, description="1 for grey, 3 for colour")
    range: Literal["0..1", "-1..1"] = Field("0..1", description="pixel values the networks see")
    classes: list[str] = Field([], description="train on these classes alone; empty for all")
    attribute: str = Field("", description="a binary attribute that becomes the class of an image")
    flip: bool = Field(False, description="mirror half of the training images")
    convert: bool = Field(False, description="turn colour images grey, or grey ones into colour")
    loading: Literal["decode", "batch"] = Field(
        "decode", description="decode to `size`, or keep `source_size` and down-sample each batch"
    )
    source_size: int = Field(256, ge=4, le=2048, description="size kept by `loading = 'batch'`")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="held out where no split is published")
    split_seed: int = Field(0, ge=0, description="seed of that split, apart from the training seed")

    @field_validator("classes", "attribute")
    @classmethod
    def _composed(cls, value: list[str] | str) -> list[str] | str:
        """Names as the data has them: accents composed (NFC), which a Mac's file names are not."""
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value)
        return [unicodedata.normalize("NFC", name) for name in value]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image as the networks see it, `(C, H, W)`."""
        return (self.channels, self.size, self.size)

    @property
    def stored_size(self) -> int:
        """Side, in pixels, at which images are kept in the cache."""
        return self.source_size if self.loading == "batch" else self.size

    @model_validator(mode="after")
    def _down_samples(self) -> DataOptions:
        if self.loading == "batch" and self.source_size < self.size:
            raise ValueError(f"source_size ({self.source_size}) is smaller than size ({self.size})")
        return self


class ModelChoice(BaseModel):
    """The model's name; its further options are validated by the model itself (`Model.Options`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """All given options but the name."""
        return dict(self.model_extra or {})


class NetworkOptions(Section):
    """A network: a list of layer specs, or the dotted path of a module of the user's own."""

    layers: list[str] = Field([], description="layer specs from input to output")
    heads: dict[str, list[str]] = Field({}, description="named outputs that share `layers`")
    init: Literal["glorot", "he", "dcgan", "torch"] = Field(
        "glorot", description="how weights begin; 'dcgan' is normal with deviation 0.02"
    )
    spectral_norm: bool = Field(False, description="every dense and convolutional layer is spectrally normalised")
    dropout: float = Field(0.0, ge=0, lt=1, description="share dropped after every activation inside `layers`")
    module: str = Field("", description="`package.module.Class`, called with `arguments`")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of `module`")

    @model_validator(mode="after")
    def _either(self) -> NetworkOptions:
        if bool(self.layers or self.heads) == bool(self.module):
            raise ValueError("a network needs either layers or a module, and not both")
        return self


class OptimizerOptions(Section):
    """Adam (Kingma and Ba, 2015) and its settings."""

    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0, description="decoupled, as in AdamW")

    @field_validator("betas")
    @classmethod
    def _in_range(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each beta lies in 0 <= beta < 1")
        return betas


_INTERVAL = re.compile(r"(\d+(?:\.\d+)?) (epoch|step|minute)s?")


class Interval(str):
    """`"10 epochs"`, `"500 steps"`, `"2 minutes"`, or `"never"`."""

    @property
    def parts(self) -> tuple[float, str]:
        """Count and unit; `(inf, "step")` for never."""
        match = _INTERVAL.fullmatch(self)
        return (float(match[1]), match[2]) if match else (float("inf"), "step")


class TrainingOptions(Section):
    """For how long, with which optimiser, and what is kept on the way."""

    epochs: float | None = Field(None, gt=0, le=1e6, description="passes over the training images")
    steps: int | None = Field(None, gt=0, le=10**9, description="iterations over all phases of the model")
    minutes: float | None = Field(None, gt=0, le=1e6, description="time in the training loop")
    batch_size: int = Field(128, ge=1)
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of weights, batches, latents and snapshots")
    optimizer: OptimizerOptions = OptimizerOptions()
    optimizers: dict[str, OptimizerOptions] = Field({}, description="by phase, where one differs")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged generating networks; 0: none")
    record_every: int = Field(10, ge=1, description="steps averaged into one journal line")
    snapshot_every: str = Field("1 epoch", description="fixed latents are drawn this often")
    checkpoint_every: str = Field("1 epoch", description="the run can resume from here")
    test_every: str = Field("1 epoch", description="the test set is measured this often")
    best: str = Field("", description="test term, or `fid`, whose lowest value marks the best checkpoint")
    until: str = Field("", description="test term, or `fid`: training ends when it no longer falls; also `best`")
    patience: int = Field(
        5, ge=1, description="tests in a row that bring nothing better before `until` ends a training"
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "auto",
        description="of matrix products in training, the rest stays float32; auto: bfloat16 where the hardware has it",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="on a CPU; auto: as many as pay; a number: results that repeat bit for bit"
    )
    capture: bool = Field(
        False, description="on a GPU by NVIDIA: record an iteration as a CUDA graph, and launch it as one"
    )
    device: str = Field("auto", description="cpu, cuda, mps; auto takes the fastest there is")

    @field_validator("snapshot_every", "checkpoint_every", "test_every")
    @classmethod
    def _interval(cls, text: str) -> str:
        if text != "never" and (not (m := _INTERVAL.fullmatch(text)) or float(m[1]) == 0):
            raise ValueError(f"'{text}' is no interval; write '10 epochs', '500 steps', '2 minutes' or 'never'")
        return text

    @property
    def watched(self) -> str:
        """The test term that marks the best checkpoint; "" for none."""
        return self.until or self.best

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingOptions:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of epochs, steps and minutes, not {' and '.join(given) or 'none'}")
        return self


BUDGETS = ("epochs", "steps", "minutes")


class Recipe(Section):
    """Everything a run is made from."""

    name: str
    description: str = ""
    origin: str = Field("", description="where the system was first described")
    standard: bool = Field(False, description="whether it stands for its model where only data of its kind are named")
    data: DataOptions
    model: ModelChoice
    networks: dict[str, NetworkOptions]
    training: TrainingOptions

    def to_toml(self) -> str:
        """Returns the recipe as TOML that `load_recipe` reads back to an equal recipe."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=False)

    def updated(self, overrides: Mapping[str, Any]) -> Recipe:
        """Returns a copy with dotted keys replaced.

        Args:
            overrides: such as `{"training.batch_size": 64}`.

        Raises:
            UserError: for unknown keys and wrong values, naming the key.
        """
        return _validated(_overridden(self.model_dump(exclude_none=True), overrides, self.name))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a nested mapping by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with the package, sorted."""
    folder = resources.files("zeuxis") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(name: str | Path, overrides: Mapping[str, Any] | Iterable[str] = ()) -> Recipe:
    """Reads a named recipe or the user's TOML file, follows `extends`, applies overrides, validates.

    Args:
        name: a name from `recipe_names()`, or the path of a TOML file.
        overrides: `{"training.batch_size": 64}` or `["training.batch_size=64"]`.

    Raises:
        UserError: for unknown names, unreadable files, unknown keys and wrong values.
    """
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    raw = _read(str(name), ())
    return _validated(_overridden(raw, overrides, raw["name"]))


def parse_override(text: str) -> tuple[str, Any]:
    """Parses `KEY=VALUE`; the value is TOML where it reads as such, else text.

    Raises:
        UserError: for text without a key and an equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"'{text}' is no override; write KEY=VALUE, such as training.batch_size=64.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def explain(error: ValidationError, where: str, schema: type[BaseModel], prefix: str = "") -> UserError:
    """Turns pydantic's findings into sentences that name the recipe, the key and the nearest valid one."""
    sentences = []
    for item in error.errors():
        loc = [str(part) for part in item["loc"]]
        key = ".".join([*([prefix] if prefix else []), *loc])
        if item["type"] == "extra_forbidden":
            valid = _fields(schema, loc[:-1])
            sentences.append(f"{where} has no key '{key}'.{nearest(loc[-1], valid)}")
        elif item["type"] == "missing":
            sentences.append(f"{where} lacks the key '{key}'.")
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            message = message.replace(", unable to parse string as an integer", "").replace(
                ", unable to parse string as a number", ""
            )
            got = "" if isinstance(item["input"], dict | BaseModel) else f", not {item['input']!r}"
            verb = "" if message.startswith("should") else ":"
            sentences.append(f"{where}: {key}{verb} {message}{got}.")
    return UserError(" ".join(dict.fromkeys(sentences)))


def _fields(schema: type[BaseModel], path: list[str]) -> list[str]:
    """Names valid below `path` in a schema; parts that are free names (a network's) are passed over."""
    for part in path:
        if part in schema.model_fields:
            annotation = schema.model_fields[part].annotation
            inner = [annotation, *getattr(annotation, "__args__", ())]
            schema = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), schema)
    return list(schema.model_fields)


def _overridden(raw: dict[str, Any], overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    tree = _merged(raw, {})
    for key, value in overrides.items():
        *path, last = key.split(".")
        node = tree
        for depth, part in enumerate(path):
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"Recipe {name}: {'.'.join(path[: depth + 1])} is a value and has no parts.")
        if path == ["training"] and last in BUDGETS and value is not None:
            for other in BUDGETS:
                node.pop(other, None)
        node[last] = value
    return tree


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise UserError(f"Recipe {seen[0]} extends itself: {' -> '.join([*seen, name])}.")
    path = Path(name)
    if name in recipe_names():
        text, own_name = (resources.files("zeuxis") / "recipes" / f"{name}.toml").read_text("utf-8"), name
    elif path.suffix == ".toml" or (exists(path) and path.is_file()):
        try:
            text, own_name = path.read_text("utf-8"), path.stem
        except OSError as error:
            raise UserError(f"The recipe {name} cannot be read: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"The recipe {name} is no UTF-8 text.") from error
    else:
        raise one_of("recipe", name, recipe_names())
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"The recipe {name} is not valid TOML: {error}.") from error
    parent = raw.pop("extends", None)
    if parent is not None:
        if not isinstance(parent, str):
            raise UserError(f"Recipe {name}: extends must be the name of one recipe, not {parent!r}.")
        beside = path.parent / parent
        inherited = _read(str(beside) if beside.is_file() else parent, (*seen, name))
        for own in ("name", "standard"):
            inherited.pop(own, None)
        if any(budget in raw.get("training", {}) for budget in BUDGETS):
            for budget in BUDGETS:
                inherited.get("training", {}).pop(budget, None)
        before = inherited.get("model", {}).get("name")
        if raw.get("model", {}).get("name", before) != before:  # another model has options and phases of its own
            inherited.pop("model")
            inherited.get("training", {}).pop("optimizers", None)
        for part, network in raw.get("networks", {}).items():
            if isinstance(network, dict) and "layers" in network:  # other layers have heads of their own, or none
                inherited.get("networks", {}).get(part, {}).pop("heads", None)
        raw = _merged(inherited, raw)
    return {"name": own_name, **raw}


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge of tables; anything else in `over` replaces what `base` has."""
    result = {key: _merged(value, {}) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _validated(raw: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise explain(error, f"Recipe {raw.get('name', '')}", Recipe) from None
