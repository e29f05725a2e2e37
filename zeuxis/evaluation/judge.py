"""The judge of a run: the network in whose features samples are measured and, if it is a classifier, their classes.

The first of these that is available:

1. a classifier that comes with the package, trained on the same data set (`zeuxis.evaluation.judges`);
2. a classifier of the images' own classes, trained when it is first needed and stored in the cache;
3. for colour images without classes, or with classes that a classifier cannot learn, a general network
   (`zeuxis.evaluation.efficientnet`), if it is installed;
4. for all others, a convolutional network with random weights. Its features tell how similar two sets of images are in
   edges, textures and colours, not in content, and it predicts no classes.

Other judges are chosen by name (`zeuxis.evaluation.features`): a general network trained on photographs,
`efficientnet`; the network of the literature, `inception`; and any network of timm.

Source: W. Xu et al. and M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi and J. Yoo, Reliable Fidelity and Diversity Metrics for
Generative Models, ICML 2020, section 5 (features of random networks).
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeuxis.data import from_unit, load, on_white
from zeuxis.data.labels import rare_class
from zeuxis.errors import StoppedError, UserError, quoted
from zeuxis.evaluation.efficientnet import EfficientNet
from zeuxis.evaluation.features import JUDGES, FeatureJudge
from zeuxis.evaluation.judges import judges
from zeuxis.files import WriteError, cache_dir, make_folder, path_part, unfinished
from zeuxis.models import HasFeatures
from zeuxis.nets import Shape
from zeuxis.nets.photographs import installed
from zeuxis.progress import say
from zeuxis.recipe import DataOptions, Recipe
from zeuxis.run import Run
from zeuxis.training import start

__all__ = [
    "Judge", "RandomFeatures", "features_of", "find_judge", "find_or_train_judge", "judge_name", "judged",
    "train_judge",
]  # fmt: skip

# Longest training of a classifier; it ends earlier once its cross-entropy no longer falls.
MINUTES = 3.0
# A classifier is not used as a judge if its error is above this share of the error of guessing.
MOST_WRONG = 0.7
WIDTHS = (32, 64, 128, 128, 128, 128)
SEED = 20_200


@JUDGES.add("random")
class RandomFeatures(FeatureJudge):
    """A convolutional network whose weights are sampled with a fixed seed and never trained.

    Its features are the mean and the maximum of each channel over all positions, `(N, 2 C)`.
    """

    chunk: ClassVar[int] = 256

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(shape, **options)
        channels, height, width = self.shape
        self.name = f"random features {height}x{width}x{channels}"
        layers: list[nn.Module] = []
        side = min(height, width)
        generator = torch.Generator().manual_seed(SEED)
        for filters in WIDTHS:
            layer = nn.Conv2d(channels, filters, 3, stride=2 if side > 4 else 1, padding=1)
            with torch.no_grad():
                layer.weight.normal_(0, (2 / (9 * channels)) ** 0.5, generator=generator)
                layer.bias.uniform_(-0.5, 0.5, generator=generator)  # type: ignore[union-attr]
            layers += [layer, nn.ReLU()]
            channels, side = filters, -(-side // 2)
            if side <= 2:
                break
        self.network = nn.Sequential(*layers).eval()

    def extract(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.network(pixels / 127.5 - 1)
        return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)


Judge = Run | FeatureJudge


def judge_name(judge: Judge) -> str:
    """Returns the name of the judge's features, which goes with every distance measured in them."""
    return judge.recipe.name if isinstance(judge, Run) else judge.name


def find_or_train_judge(run: Run) -> Judge:
    """Returns the judge of a run; if there is none yet, trains a classifier of its images' classes for minutes."""
    images = run.recipe.data, run.classes, run.environment["data"]["fingerprint"]
    return find_judge(*images) or train_judge(*images)


def features_of(judge: Judge, images: Tensor) -> Tensor:
    """Returns a judge's features `(B, F)` of `(B, C, H, W)` images in 0..1, through which gradients pass."""
    if isinstance(judge, FeatureJudge):
        return judge.extract(on_white(images.cpu()) * 255)
    model = judge.model
    if not isinstance(model, HasFeatures):
        raise UserError(f"{judge.path} is a '{judge.recipe.model.name}', which has no features to measure in.")
    return model.features_and_logits(from_unit(on_white(images).to(judge.device), judge.recipe.data.range))[0]


def find_judge(options: DataOptions, classes: tuple[str, ...], fingerprint: str) -> Judge | None:
    """Returns the judge of a data set, or None if a classifier of its classes has yet to be trained.

    Args:
        options: the data section of the run's recipe.
        classes: names of the classes; empty if there are none.
        fingerprint: of the data.
    """
    options = judged(options)
    alike = [judge for judge in judges() if _kind(judge.recipe.data) == _kind(options)]
    if options.source == "folder":  # other images may have the same name
        alike = [judge for judge in alike if classes and set(classes) <= set(judge.classes)]
    if alike:
        return alike[0]
    if len(classes) < 2:
        return _general(options.shape)
    folder = _folder(classifier_recipe(options, fingerprint))
    if not folder.is_dir():
        return None
    judge = Run(folder)
    able = min(judge.series("test/error")[1], default=1.0) < MOST_WRONG * (1 - 1 / len(classes))
    return judge if able else _general(options.shape)


def train_judge(options: DataOptions, classes: tuple[str, ...], fingerprint: str) -> Judge:
    """Trains a classifier of the images' classes, stores it in the cache, and returns the judge.

    If there are too few images for a classifier, or it cannot learn the classes, a fixed network is the judge. The
    arguments are those of `find_judge`.
    """
    recipe = classifier_recipe(options, fingerprint)
    folder = _folder(recipe)
    dataset = load(options, recipe=recipe.name)
    if dataset.fingerprint != fingerprint:
        raise UserError(
            f"The images of {options.path or options.source} have changed, so no judge can be trained on them."
        )
    labels = dataset.labels if dataset.classes else None
    if labels is not None and labels.ndim == 1 and (rare := rare_class(labels, dataset.classes)):
        say(f"A fixed network is the judge: a classifier needs more images of the class '{quoted(rare)}'.")
        return _general(judged(options).shape)
    say(
        f"No classifier of these images comes with the package. One is trained on their classes now, once, in at most "
        f"{MINUTES:g} minutes: {folder}"
    )
    make_folder(folder.parent)
    with unfinished(folder.parent) as temporary:
        try:
            if not start(recipe, temporary, name=recipe.name)[1]:
                raise StoppedError("Stopped before the classifier that serves as judge was trained.")
        except (StoppedError, WriteError):
            raise
        except UserError as error:
            say(f"No classifier can be trained on these images, so a fixed network is the judge. {error}")
            return _general(judged(options).shape)
        with suppress(OSError):  # if another process was faster, its judge is used
            (temporary / recipe.name).rename(folder)
    return find_judge(options, classes, fingerprint) or _general(judged(options).shape)


@cache
def _general(shape: Shape) -> FeatureJudge:
    """Returns the judge of images that have no classes, or none that a classifier can learn."""
    return EfficientNet(shape) if shape[0] == 3 and installed() else RandomFeatures(shape)


def judged(options: DataOptions) -> DataOptions:
    """Returns the options of images as a judge sees them: transparent ones on white."""
    return options.model_copy(update={"channels": 3, "background": "#ffffff"}) if options.channels == 4 else options


def _kind(data: DataOptions) -> tuple[str, str, Shape]:
    """Returns what identifies the images of a recipe, without their classes: source, name of the path, shape."""
    return data.source, Path(data.path).name, data.shape


def _folder(recipe: Recipe) -> Path:
    """Returns the folder in the cache of the classifier that a recipe trains."""
    return cache_dir() / "judges" / recipe.name


def classifier_recipe(options: DataOptions, fingerprint: str) -> Recipe:
    """Returns the recipe of a classifier for images of any size: convolutions halve them to four pixels or fewer."""
    layers, side = ["conv 32 k3", "bn", "relu"], min(options.size)
    for width in WIDTHS[1:]:
        if side <= 4:
            break
        layers += [f"conv {width} k3 s2", "bn", "relu"]
        side = -(-side // 2)
    stem = Path(options.path).stem or options.source
    data: dict[str, Any] = judged(options).model_dump() | {"range": "0..1"}
    return Recipe.model_validate({
        "name": path_part(f"{stem}-cnn-{options.size.setting}-{fingerprint[:6]}"),
        "description": "Classifier trained as a judge, in whose features distances are measured",
        "data": data,
        "model": {"name": "classifier"},
        "networks": {"classifier": {"init": "he", "layers": [*layers, "globalavg", "dropout 0.3", "dense classes"]}},
        "training": {
            "minutes": MINUTES, "batch_size": 64, "until": "cross_entropy", "test_every": "100 steps",
            "snapshot_every": "never", "checkpoint_every": "never",
            "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.05},
        },
    })  # fmt: skip
