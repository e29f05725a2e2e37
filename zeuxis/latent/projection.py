r"""Projection: the latent whose image is nearest to a given picture, for models that have no encoder.

For a picture x and a generator G, Adam minimises over the latent z

    L(z) = (1 - w) |x - G(z)|^2 / P + w |f(x) - f(G(z))|^2 / F + l max(0, r(z) / R - 1),

where f are a judge's features, and P and F the mean distances of the starts. So L is near 1 for a random sample,
whatever the pictures and the features are. The last term is the prior's: r(z) is the mean square of the latent,
standardised by the mean and deviation of each of its numbers over the starts, and R its largest value among the
starts. No number leaves the range that it has among the starts either, so the search stays where the generator was
trained; a sample of the model is free of any penalty.

The search begins at the best of many random latents (and at the encoding, if the model encodes), follows several of
them at once, and drops the worse half after each round. The condition is the one asked for, or is found among the
starts, which take all classes in turn. Categorical codes keep the values of their start.

Sources: J.-Y. Zhu, P. Krähenbühl, E. Shechtman and A. Efros, Generative Visual Manipulation on the Natural Image
Manifold, ECCV 2016, section 4.1; R. Abdal, Y. Qin and P. Wonka, Image2StyleGAN, ICCV 2019 (pixels and features).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeuxis.arguments import checked
from zeuxis.data import to_bytes, to_unit
from zeuxis.errors import UserError, require_within
from zeuxis.evaluation.judge import Judge, RandomFeatures, features_of, find_judge, judge_name
from zeuxis.models import Generates
from zeuxis.progress import bar
from zeuxis.run import Run
from zeuxis.threads import paced, threads

__all__ = ["Projection", "project", "searching"]

# Fewest classes of a classifier that serves as judge: one of smiles sees little else, and the search adds smiles.
FEWEST = 5
# Weight of the features, and of the prior.
FEATURES, PRIOR = 0.5, 1.0
# Latents followed in each round, and Adam's learning rate in it, in deviations of the latents.
ROUNDS = ((8, 0.1), (4, 0.05), (2, 0.025), (1, 0.0125))
# Latents of one class among those that are followed at first, where classes are searched.
OF_EACH = 2
# Starts decoded at a time, and steps from one frame of the film to the next.
CHUNK, FRAME = 64, 4


@dataclass(frozen=True)
class Projection:
    """The result of a projection.

    Attributes:
        latent: `(Z,)`.
        condition: `(K,)`, asked for or found; None if the model is not conditional.
        label: the condition in words; "" if there is none.
        target: the picture, `(H, W, C)` in 0..1.
        start: the image of the best start, as `target`.
        image: the image of the latent, as `target`.
        film: images on the way there, `(T, H, W, C)` bytes.
        start_mse: mean squared error of the best start's pixels.
        mse: that of the image.
        start_distance: Euclidean distance of the best start in the judge's features.
        distance: that of the image.
        features: name of these features.
        seconds: that the search took.
    """

    latent: np.ndarray
    condition: np.ndarray | None
    label: str
    target: np.ndarray
    start: np.ndarray
    image: np.ndarray
    film: np.ndarray
    start_mse: float
    mse: float
    start_distance: float
    distance: float
    features: str
    seconds: float


class _Distances(NamedTuple):
    """Squared distances `(B,)` of images from the target: averaged over pixels, summed over features."""

    pixels: Tensor
    features: Tensor


class _Search:
    """What stays the same while latents are searched for one picture."""

    def __init__(self, run: Run, picture: np.ndarray, judge: Judge) -> None:
        model = run.model
        if not isinstance(model, Generates):
            raise UserError(f"{run.path} is a '{run.recipe.model.name}', which makes no images.")
        self.run, self.model, self.judge = run, model, judge
        self.target = torch.as_tensor(picture, dtype=torch.float32, device=run.device).permute(2, 0, 1)[None]
        with torch.no_grad():
            self.features = features_of(judge, self.target)

    def images(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Returns images `(B, C, H, W)` in 0..1."""
        return to_unit(self.model.generate(latents, condition), self.run.recipe.data.range)

    def distances(self, images: Tensor) -> _Distances:
        apart = (features_of(self.judge, images) - self.features).square().sum(dim=1)
        return _Distances((images - self.target).square().mean(dim=(1, 2, 3)), apart.to(images.device))

    def measured(self, latents: Tensor, condition: Tensor | None) -> _Distances:
        """Returns distances of many latents, without gradients."""
        parts = []
        with torch.no_grad():
            for i in paced(range(0, len(latents), CHUNK), "project"):
                part = slice(i, i + CHUNK)
                parts.append(self.distances(self.images(latents[part], _rows(condition, part))))
        return _Distances(torch.cat([p.pixels for p in parts]), torch.cat([p.features for p in parts]))


class _Region:
    """Where the generator was trained, in standardised latents: the starts' range and their largest mean square."""

    def __init__(self, starts: Tensor) -> None:
        self.mean, self.deviation = starts.mean(dim=0), starts.std(dim=0).clamp(min=1e-6)
        standardised = self.standardised(starts)
        self.low, self.high = standardised.amin(dim=0), standardised.amax(dim=0)
        self.radius = standardised.square().mean(dim=1).max()

    def standardised(self, latents: Tensor) -> Tensor:
        return (latents - self.mean) / self.deviation

    def latents(self, standardised: Tensor) -> Tensor:
        return self.mean + self.deviation * standardised

    def outside(self, standardised: Tensor) -> Tensor:
        """Returns how far latents lie outside, `(B,)`; 0 inside."""
        return (standardised.square().mean(dim=1) / self.radius - 1).clamp(min=0)


@checked
def project(
    run: Run,
    picture: np.ndarray,
    *,
    label: str | None = None,
    starts: int = 512,
    steps: int = 200,
    seed: int = 1,
    judge: Judge | None = None,
    progress: bool = True,
) -> Projection:
    """Searches the latent whose image is nearest to a picture.

    Args:
        run: the run, whose model makes images.
        picture: `(H, W, C)` in 0..1, as `Run.read_files` returns it.
        label: the condition, for conditional models; None to search it.
        starts: number of random latents, of which the best are followed.
        steps: of Adam.
        seed: of the starts.
        judge: in whose features the distance is measured; by default a classifier of the images' own classes, if there
            is one already of enough classes, else a network with random weights.
        progress: show a bar.

    Raises:
        UserError: if the model makes no images or takes no such condition, or if a number is out of range.
    """
    work = searching(run, picture, label=label, starts=starts, steps=steps, seed=seed, judge=judge)
    with bar("searching", steps, visible=progress) as advance:
        while True:
            try:
                next(work)
            except StopIteration as end:
                found: Projection = end.value
                return found
            advance(1)


def searching(
    run: Run,
    picture: np.ndarray,
    *,
    label: str | None = None,
    starts: int = 512,
    steps: int = 200,
    seed: int = 1,
    judge: Judge | None = None,
) -> Generator[None, None, Projection]:
    """Does what `project` does, with the same arguments, and yields after each step; it returns the projection."""
    require_within("The number of starts", starts, 64, 100_000)
    require_within("The number of steps", steps, len(ROUNDS), 100_000)
    began = time.perf_counter()
    search = _Search(run, picture, judge or _judge(run))
    latents, condition = _starts(run, picture, label, starts, seed)
    region = _Region(latents)
    first = search.measured(latents, condition)
    scale = _Distances(first.pixels.mean(), first.features.mean().clamp(min=1e-12))

    def loss(distances: _Distances) -> Tensor:
        return (1 - FEATURES) * distances.pixels / scale.pixels + FEATURES * distances.features / scale.features

    best = _few_of_each(loss(first).argsort(), condition)[: ROUNDS[0][0]]
    z, condition = latents[best], _rows(condition, best)
    start = z[:1], _rows(condition, slice(1))
    fixed = [slice(code.start, code.start + code.size) for code in run.codes if code.categorical]
    film: list[Tensor] = []
    for number, (count, rate) in enumerate(ROUNDS):
        u = region.standardised(z[:count]).requires_grad_()
        condition, film = _rows(condition, slice(count)), [frame[:count] for frame in film]
        optimizer = torch.optim.Adam([u], lr=rate)
        for step in range(steps * number // len(ROUNDS), steps * (number + 1) // len(ROUNDS)):
            with threads.unit("search"):
                images = search.images(region.latents(u), condition)
                total = loss(search.distances(images)) + PRIOR * region.outside(u)
                (u.grad,) = torch.autograd.grad(total.sum(), u)
                for part in fixed:
                    u.grad[:, part] = 0
                optimizer.step()
                with torch.no_grad():
                    u.clamp_(region.low, region.high)
                if step % FRAME == 0:
                    film.append(images.detach().cpu())
            yield
        z = region.latents(u.detach())
        order = loss(search.measured(z, condition)).argsort()
        z, condition, film = z[order], _rows(condition, order), [frame[order.cpu()] for frame in film]
    return _result(search, z, condition, start, film, began)


def _few_of_each(order: Tensor, condition: Tensor | None) -> Tensor:
    """Keeps the first `OF_EACH` indices of each condition, in order: the right class may not have the best start."""
    if condition is None or (condition == condition[0]).all():
        return order
    _, kinds = torch.unique(condition[order], dim=0, return_inverse=True)
    sizes, by_kind = kinds.bincount(), kinds.argsort(stable=True)
    before = (sizes.cumsum(0) - sizes)[kinds[by_kind]]
    place = torch.empty_like(kinds)
    place[by_kind] = torch.arange(len(kinds), device=kinds.device) - before  # among those of its kind
    return order[place < OF_EACH]


def _rows(table: Tensor | None, part: slice | Tensor) -> Tensor | None:
    return None if table is None else table[part]


def _judge(run: Run) -> Judge:
    data = run.recipe.data
    judge = find_judge(data, run.classes, run.environment["data"]["fingerprint"])
    return judge if isinstance(judge, Run) and len(judge.classes) >= FEWEST else RandomFeatures(data.shape)


def _starts(run: Run, picture: np.ndarray, label: str | None, count: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Returns latents `(N, Z)` to start from and their conditions: samples of the prior, and encodings if there are."""
    latents, condition = run.latents(count, seed), run.in_turn(count)
    tried = run.model.conditions.vectors if run.conditional else None
    if label is not None:
        tried = run.condition_for(picture[None], label)
        condition = None if tried is None else np.repeat(tried, count, axis=0)
    if run.encodes and (tried is None or len(tried)):
        pictures = np.repeat(picture[None], 1 if tried is None else len(tried), axis=0)
        latents = np.concatenate([latents, run.encode(pictures, tried)])
        condition = None if tried is None or condition is None else np.concatenate([condition, tried])
    return _tensor(latents, run.device), None if condition is None else _tensor(condition, run.device)


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=device)


def _result(
    search: _Search,
    latents: Tensor,
    condition: Tensor | None,
    start: tuple[Tensor, Tensor | None],
    film: list[Tensor],
    began: float,
) -> Projection:
    shown, apart = [], []
    with torch.no_grad():
        for z, weights in (start, (latents[:1], _rows(condition, slice(1)))):
            images = search.images(z, weights)
            apart.append(search.distances(images))
            shown.append(images[0].permute(1, 2, 0).cpu().numpy())
    found = None if condition is None else condition[0].cpu().numpy()
    frames = torch.stack([frame[0] for frame in film]).permute(0, 2, 3, 1).numpy()
    return Projection(
        latent=latents[0].cpu().numpy(),
        condition=found,
        label="" if found is None else search.run.model.conditions.name_of(found),
        target=search.target[0].permute(1, 2, 0).cpu().numpy(),
        start=shown[0],
        image=shown[1],
        film=np.concatenate([to_bytes(frames), to_bytes(shown[1][None])]),
        start_mse=float(apart[0].pixels),
        mse=float(apart[1].pixels),
        start_distance=float(apart[0].features.sqrt()),
        distance=float(apart[1].features.sqrt()),
        features=judge_name(search.judge),
        seconds=time.perf_counter() - began,
    )
