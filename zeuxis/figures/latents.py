"""Map of test images in latent space, coloured by class or attribute.

Two dimensions are drawn as they are; more are laid out by t-SNE (L. van der Maaten and G. Hinton, 2008).
"""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from zeuxis.errors import UserError
from zeuxis.figures.registry import figure
from zeuxis.figures.style import CLASSES, LINES, choose_attribute, fitting, new_figure, tile_axes, title
from zeuxis.run import Run

# The reports used t-SNE of 500 encoded test images (specification A1).
PLANE_POINTS, TSNE_POINTS = 3000, 500


@figure(
    "latents",
    "Latent space",
    "Each point is a held-out image at the mean of its posterior, coloured by class or attribute.",
    order=6,
    applies=lambda run: run.encodes,
)
def latents(run: Run, points: int = TSNE_POINTS, attribute: str = "") -> Figure:
    """Draws the map of latents.

    Args:
        run: what to draw.
        points: number of held-out images, where t-SNE lays them out.
        attribute: colours points by this attribute instead of by class; without classes, one is chosen.
    """
    is_plane = run.latent_size == 2
    indices = run.choose_images("test", PLANE_POINTS if is_plane else points)
    labels, names = run.labels(indices), run.dataset.classes
    places = run.encode(run.images(indices), run.condition_of_labels(labels))
    if not is_plane:
        places = embed(places)
    if labels is not None and labels.ndim > 1:  # numbers are no classes
        labels = None
    if labels is None and run.attributes:
        attribute = attribute or choose_attribute(run, "Male")  # the attribute of the reports' own map
    if attribute:
        labels, names = run.attribute(attribute, indices).astype(int), (f"not {attribute}", attribute)
    fig = new_figure(7.6, 6.6)
    ax = fig.subplots()
    if labels is None:
        ax.scatter(places[:, 0], places[:, 1], s=11, color=LINES[0], alpha=0.75, lw=0)
    else:
        marks: list[Artist] = []
        for index in range(len(names)):
            of_class = places[labels == index]
            colour = CLASSES[index % len(CLASSES)]
            marks.append(ax.scatter(of_class[:, 0], of_class[:, 1], s=11, color=colour, alpha=0.75, lw=0))
        ax.legend(
            handles=marks,
            labels=[fitting(name, 18, 2) for name in names],
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            markerscale=2.2,
            handletextpad=0.2,
        )
    ax.set_aspect("equal", adjustable="box")
    if is_plane:
        ax.set_xlabel("first latent")
        ax.set_ylabel("second latent")
    else:
        tile_axes(ax)  # t-SNE's axes have no meaning
    title(fig, run, "Latents of test images" if is_plane else f"Latents of {len(places)} test images, t-SNE")
    return fig


def embed(places: np.ndarray) -> np.ndarray:
    """Maps `(N, Z)` to two dimensions by t-SNE; the same input gives the same map."""
    from sklearn.manifold import TSNE

    if len(places) < 4:
        raise UserError(f"A map of latents by t-SNE needs at least 4 images, not {len(places)}.")
    perplexity = min(30.0, max((len(places) - 1) / 3, 1.0))
    return np.asarray(TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(places))
