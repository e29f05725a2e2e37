r"""Directions in latent space, along which images change in one respect.

Learned from labels: the mean latent of images with an attribute (or of a class) minus that of those without. One step
leads from the average image without it to the average image with it. The latents are encodings of training images. For
a generator without encoder they are random, and a classifier of the images' own classes says how likely each sample
shows the class; the means are weighted by this probability.

Learned without labels: the principal components of the latents. For a model that encodes, these are encodings of
training images. For a generator without encoder the latents are noise, alike in all directions; there the components
are those of the first layer's outputs. This layer is linear, h = W z + b, so the components come from W itself: with
the deviations D of the latents, W D = U S V^T, and the k-th direction is D v_k. One step along any of them is one
standard deviation.

Sources: A. Radford, L. Metz and S. Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016, 6.3.2,
and A. B. L. Larsen et al., ICML 2016, section 4.1.1 (differences of means); Y. Shen et al., Interpreting the Latent
Space of GANs for Semantic Face Editing, CVPR 2020 (a classifier of samples); E. Härkönen et al., GANSpace, NeurIPS
2020, and Y. Shen and B. Zhou, Closed-Form Factorization of Latent Semantics in GANs, CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from zeuxis.errors import UserError, one_of, require_within
from zeuxis.evaluation.judge import find_judge
from zeuxis.latent.projection import project
from zeuxis.nets.network import Network
from zeuxis.run import Run

__all__ = ["Directions", "attribute_direction", "directions", "edit", "has_directions"]

# Training images that are encoded, and samples that are classified.
MEASURED = 4000
# Fewest expected samples with and without a class, for a direction.
FEWEST = 20
# Steps along a direction that an edit may take, either way.
MOST_STEPS = 100


@dataclass(frozen=True)
class Directions:
    """Directions by their share of the variance, the largest first.

    Attributes:
        vectors: `(D, Z)`, each as long as one standard deviation.
        shares: share of the variance that each explains, `(D,)`.
        of: what varies, in words.
    """

    vectors: np.ndarray
    shares: np.ndarray
    of: str


def directions(run: Run) -> Directions:
    """Returns the unsupervised directions of a run.

    Raises:
        UserError: if it has none: it makes no images, or neither encodes nor begins with a linear layer, or all latents
            are alike.
    """
    if run.encodes and run.generates:
        indices = run.choose_images("train", MEASURED)
        latents = run.encode(run.images(indices), run.condition_of_labels(run.labels(indices))).astype(np.float64)
        _, size, axes = np.linalg.svd(latents - latents.mean(axis=0), full_matrices=False)
        deviations = size / max(len(latents) - 1, 1) ** 0.5
        return _ordered(axes, axes * deviations[:, None], size, "latents of training images")
    matrix = _first_layer(run.model)
    if matrix is None:
        raise UserError(
            f"{run.path} has no unsupervised directions: it neither encodes images nor makes them by a network whose "
            "first layer is linear in the latents."
        )
    deviation = run.latents(MEASURED).std(axis=0)
    _, size, axes = np.linalg.svd((deviation[:, None] * matrix).T, full_matrices=False)
    return _ordered(axes, axes * deviation, size, "outputs of the first layer")


def has_directions(run: Run) -> bool:
    """Returns whether a run has unsupervised directions; its weights are not read for that."""
    return run.generates and (run.encodes or _first_layer(run.structure) is not None)


def _ordered(axes: np.ndarray, vectors: np.ndarray, sizes: np.ndarray, of: str) -> Directions:
    """Drops directions without variance, and turns each so that the largest number of its axis is positive."""
    shares = np.square(sizes) / max(float(np.square(sizes).sum()), 1e-12)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    kept = shares > 1e-9
    if not kept.any():
        raise UserError(f"There are no directions: the {of} are all alike.")
    return Directions((vectors * signs[:, None])[kept].astype(np.float32), shares[kept], of)


def _first_layer(model: Any) -> np.ndarray | None:
    """Returns the matrix `(Z, F)` of the generator's first layer; None if latents enter no linear layer."""
    device = next(model.parameters()).device
    latents = model.sample_latents(2, torch.Generator().manual_seed(1)).to(device)
    condition = torch.as_tensor(model.conditions.in_turn(2), device=device) if model.conditional else None
    entered: list[Network] = []

    def note(network: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(network, Network) and inputs[0].shape == latents.shape and torch.equal(inputs[0], latents):
            entered.append(network)

    hooks = [network.register_forward_pre_hook(note) for network in model.networks.values()]
    try:
        with torch.no_grad():
            model.eval().generate(latents, condition)
    finally:
        for hook in hooks:
            hook.remove()
    if not entered or not isinstance(entered[0].trunk, nn.Sequential):
        return None
    count, size = latents.shape[1], entered[0].input_shape[0]
    # The unit vectors, and zero, whose output is the bias; conditioning beside the latents stays zero.
    x = torch.eye(count + 1, size, device=device)
    x[count] = 0
    with torch.no_grad():
        for layer in entered[0].trunk:
            linear = isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
            if not linear and any(True for _ in layer.parameters()):
                return None
            before, x = x, layer(x)
            if linear:
                outputs: np.ndarray = (x[:count] - x[count]).flatten(1).cpu().numpy()
                return outputs
            if before.numel() != x.numel() or not torch.equal(before.flatten(), x.flatten()):
                return None  # an activation: what follows is not linear in the latents
    return None


def attribute_direction(run: Run, name: str) -> np.ndarray:
    """Returns the direction of an attribute or a class, `(Z,)`: from the mean latent without it to that with it.

    Raises:
        UserError: if the data has no such attribute or class; if all images have it, or none has; if it is the
            model's condition; and for a model without encoder if there is no classifier that knows the class.
    """
    if run.conditional and name in (*run.classes, *run.model.conditions.parts):
        raise UserError(
            f"{run.path} is given {name} as its condition, so latents do not hold it; ask for it by --label."
        )
    if not run.encodes:
        return _sampled_direction(run, name)
    indices = run.choose_images("train", MEASURED)
    labels = run.labels(indices)
    if name in run.classes and name not in run.attributes and labels is not None:
        has = labels == run.classes.index(name)
    elif run.attributes:
        has = run.attribute(name, indices)
    else:
        raise one_of("attribute or class", name, run.classes)
    if has.all() or not has.any():
        raise UserError(
            f"The attribute {name} has no direction in latent space: all images have it, or none has. Choose another."
        )
    latents = run.encode(run.images(indices), run.condition_of_labels(labels))
    direction: np.ndarray = latents[has].mean(axis=0) - latents[~has].mean(axis=0)
    return direction


def _sampled_direction(run: Run, name: str) -> np.ndarray:
    """Returns the direction of a class for a model without encoder, from samples that a classifier labels."""
    judge = find_judge(run.recipe.data, run.classes, run.environment["data"]["fingerprint"])
    if not isinstance(judge, Run):
        raise UserError(
            f"{run.path} cannot encode images, and there is no classifier of its images' classes yet that could label "
            "samples; `zeuxis evaluate` trains one where the images have classes. --direction needs no labels."
        )
    if name not in judge.classes:
        raise one_of(f"class of the classifier {judge.recipe.name}", name, judge.classes)
    latents, condition = run.latents(MEASURED), run.in_turn(MEASURED)
    likely = judge.classify(run.decode(latents, condition))[:, judge.classes.index(name)]
    if not FEWEST <= likely.sum() <= len(likely) - FEWEST:
        raise UserError(
            f"The class {name} has no direction in latent space: the classifier {judge.recipe.name} sees it in "
            f"{likely.mean():.1%} of the samples."
        )
    with_it, without = ((weights / weights.sum()) @ latents for weights in (likely, 1 - likely))
    direction: np.ndarray = with_it - without
    return direction


def edit(
    run: Run,
    pictures: np.ndarray,
    *,
    attributes: Mapping[str, float] | None = None,
    along: Mapping[int, float] | None = None,
    label: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Moves pictures along directions in latent space.

    Args:
        run: the run; if it does not encode, the pictures are projected first.
        pictures: `(N, H, W, C)` in 0..1, as `Run.read_files` returns them.
        attributes: steps by the name of an attribute or class.
        along: steps by the number of an unsupervised direction, counted from 1.
        label: the condition, for conditional models; None to search it.

    Returns:
        The pictures as the model shows them, and after the edit, `(N, H, W, C)` each.

    Raises:
        UserError: for unknown attributes and directions, and for steps out of range.
    """
    if not attributes and not along:
        raise UserError("An edit needs at least one attribute or direction, such as Smiling=+1.5 or 3=+2.")
    for steps in (*(attributes or {}).values(), *(along or {}).values()):
        require_within("The steps of an edit", steps, -MOST_STEPS, MOST_STEPS)
    shift = np.zeros(run.latent_size, np.float32)
    if along:
        vectors = directions(run).vectors
        for number, steps in along.items():
            require_within(f"The number of a direction of {run.path}", number, 1, len(vectors))
            shift += steps * vectors[number - 1]
    for name, steps in (attributes or {}).items():
        shift += steps * attribute_direction(run, name)
    if run.encodes:
        condition = run.condition_for(pictures, label)
        latents = run.encode(pictures, condition)
    else:
        found = [project(run, picture, label=label) for picture in pictures]
        latents = np.stack([each.latent for each in found])
        conditions = [each.condition for each in found if each.condition is not None]
        condition = np.stack(conditions) if conditions else None
    return run.decode(latents, condition), run.decode(latents + shift, condition)
