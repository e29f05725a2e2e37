"""Hugging Face: a run as a folder of the model hub, uploaded and downloaded.

The folder holds the run as `zeuxis.export.packing` writes it, pictures, and a model card: what it makes, how it was
trained, what was measured, and what is not known. `pull` makes a run of such a folder again. Weights are safetensors,
which hold no code, and a run that names code of its own is not trusted (`zeuxis.trust`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zeuxis.data import SOURCES
from zeuxis.errors import UserError
from zeuxis.evaluation.evaluate import read_evaluation
from zeuxis.evaluation.measure import Value, by_name, with_error
from zeuxis.evaluation.verdict import training_state, verdict
from zeuxis.export import EXPORTERS, Layout
from zeuxis.export.packing import pack
from zeuxis.figures.style import sheet
from zeuxis.figures.style import write as draw
from zeuxis.files import exists, first_line, is_name, make_folder, unfinished, why, write_file
from zeuxis.run import Run

__all__ = ["pull", "push", "to_hub"]

# What a run is made of; nothing else is downloaded.
FILES = ["recipe.toml", "environment.json", "evaluation.json", "journal.jsonl", "checkpoints/best.safetensors"]
# Samples on the card: rows and columns.
ROWS, COLUMNS = 4, 8
# Measures of the card, as far as they were taken.
TOLD = ("general_fid", "general_fid_floor", "fid", "fid_floor", "precision", "coverage", "label_agreement", "test_mse",
        "elbo", "bits_per_dimension", "suspects")  # fmt: skip


@EXPORTERS.add("hub")
def to_hub(run: Run, folder: Path, layout: Layout) -> list[str]:
    """Writes the run, `README.md` and pictures.

    Raises:
        UserError: as `pack`.
    """
    from PIL import Image

    from zeuxis.figures import FIGURES

    pack(run, folder)
    if run.generates:
        pixels = sheet(run.sample(ROWS * COLUMNS), COLUMNS)
        zoom = max(round(512 / pixels.shape[1]), 1)
        large = Image.fromarray(pixels.repeat(zoom, axis=0).repeat(zoom, axis=1))
        write_file(folder / "samples.png", lambda path: large.save(path, "PNG"))
    if FIGURES["losses"].applies(run):
        draw(lambda: FIGURES["losses"].draw(run), folder / "losses.png")
    write_file(folder / "README.md", card(run))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [f"a run, its pictures and README.md, {size / 2**20:.1f} MiB; read the card and complete it"]


def card(run: Run) -> str:
    """Returns the model card of a run, in Markdown with a header in YAML."""
    recipe, data = run.recipe, run.environment["data"]
    source = SOURCES[recipe.data.source] if recipe.data.source in SOURCES else None  # noqa: SIM401
    images = Path(recipe.data.path).name if recipe.data.path else recipe.data.source
    licence = source.licence if source and source.licence else "not known to Zeuxis; name it here"
    what = f"{data['train_images']:,} images for training"
    parameters = sum(table["total"] for table in run.summary["networks"].values())
    lines = [
        # The hub has no task for images of a class, and models that generate nothing have another.
        "---", "library_name: zeuxis",
        *["pipeline_tag: unconditional-image-generation"] * (run.generates and not run.conditional), "tags:",
        *[f"- {tag}" for tag in ("zeuxis", "image-generation", recipe.model.name)], "---", "",
        f"# {run.name}", "", f"{recipe.description or 'An image model'}.", "",
    ]  # fmt: skip
    if run.generates:
        each = run.candidates
        how = f"Each is the best of {each} by a discriminator" if each > 1 else "They are as they came"
        lines += ["![samples](samples.png)", "", f"Samples. {how}; no person chose among them.", ""]
    lines += [
        "## Use", "", "```sh", "pip install zeuxis", "zeuxis pull USER/NAME      # the name of this page",
        "zeuxis sample NAME -n 16", "```", "",
        "For learning, teaching and comparing. The images show what the training images show, with their gaps and "
        "their bias. Pictures of people that it makes are of nobody; do not pass them off as photographs.", "",
        "## Training", "",
        f"- model: `{recipe.model.name}`, {parameters:,} parameters; recipe `{recipe.name}`, step {run.step:,}, seed "
        f"{recipe.training.seed}",
        f"- images: {images} ({source.description if source else recipe.data.source}), {what}, "
        f"{recipe.data.in_words}",
        f"- their licence: {licence}",
        *[f"- {sentence}" for sentence in training_state(run)], "",
    ]  # fmt: skip
    if (run.path / "journal.jsonl").is_file() and len(run.journal) > 1:
        lines += ["![losses](losses.png)", ""]
    lines += ["## Measured", "", *_measured(run), "",
              "## Licence of the weights", "", "Not chosen yet. Choose one that the licence of the images allows, and "
              "name it here and in the header of this file.", ""]  # fmt: skip
    return "\n".join(lines)


def _measured(run: Run) -> list[str]:
    evaluation: Mapping[str, Any] | None = read_evaluation(run)
    if evaluation is None:
        return ["Nothing yet: `zeuxis evaluate` measures a run."]
    definitions = by_name()
    rows = [
        f"| {name} | {with_error(Value(**value))} | {definitions[name].gives[name]} |"
        for name, value in evaluation["measures"].items()
        if name in TOLD and name in definitions
    ]
    return [*verdict(run, evaluation), "", "| measure | value | what it is |", "|---|---:|---|", *rows]


def push(run: Run, name: str, *, private: bool = True, token: str | None = None) -> str:
    """Uploads a run to the hub, and returns the address of its page.

    Args:
        run: the run.
        name: `USER/NAME` on the hub; made if needed.
        private: whether only its owner sees a page that is new.
        token: of the hub; else the one that `hf auth login` stored, or `HF_TOKEN`.

    Raises:
        UserError: as `pack`; if the hub cannot be reached, or refuses.
    """
    with _hub() as api, TemporaryDirectory() as temporary:
        folder = make_folder(Path(temporary) / "run")
        to_hub(run, folder, "nhwc")
        made = api.create_repo(name, token=token, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, token=token, commit_message=f"{run.name}, step {run.step}"
        )
        return str(made)


def pull(name: str, runs: Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads a run from the hub into the folder of runs, and returns its folder.

    Args:
        name: `USER/NAME` on the hub.
        runs: the folder of runs.
        revision: a branch, tag or commit.
        token: of the hub.

    Raises:
        UserError: if there is a run of this name already, if the page holds no run, if the hub cannot be reached, or
            refuses.
    """
    own = name.rpartition("/")[2]
    if not is_name(own):
        raise UserError(f"'{name}' is not a name on the hub; it should be USER/NAME.")
    target = runs / own
    if exists(target):
        raise UserError(
            f"{target} exists already; rename it (`zeuxis runs rename`), or pull into another folder: --runs."
        )
    with unfinished(runs) as aside, _hub() as api:
        api.snapshot_download(name, revision=revision, local_dir=aside / "got", allow_patterns=FILES, token=token)
        new = make_folder(aside / own)
        for file in FILES:
            got = aside / "got" / file
            if got.is_file() and not got.is_symlink():
                make_folder((new / file).parent)
                got.rename(new / file)
        if not (new / "recipe.toml").is_file() or not (new / "checkpoints").is_dir():
            raise UserError(f"{name} holds no run of Zeuxis: recipe.toml or checkpoints/best.safetensors is missing.")
        new.rename(target)
    return target


@contextmanager
def _hub() -> Iterator[Any]:
    """Yields the hub's client; what it raises becomes a sentence."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise UserError("The hub needs huggingface_hub: pip install 'zeuxis[hub]'.") from error
    try:
        yield HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    except HFValidationError as error:
        raise UserError(f"The hub does not know such a name: {error}") from error
    except HfHubHTTPError as error:
        raise UserError(f"The hub cannot do this: {first_line(error)}") from error
    except OSError as error:  # of this machine's files, or of a connection, which has no number
        trouble = "Its files cannot be kept" if error.errno else "The hub cannot be reached"
        raise UserError(f"{trouble}: {why(error) if error.errno else first_line(error)}.") from error
    except Exception as error:
        # Its HTTP client has errors of its own, for a server that cannot be reached.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        raise UserError(f"The hub cannot be reached: {error}") from error
