"""Confusion matrix of a classifier, and the held-out images that it misclassifies most confidently."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import INK, LINES, PAPER, fitting, new_figure, show_tiles, title
from zeuxis.run import Run

COLUMNS, ROWS, MOST = 4, 4, 20
# Characters of a class on an axis.
LONGEST = 16


@figure(
    "confusion",
    "Confusions",
    "Left: held-out images by their class (rows) and their predicted class (columns), in per cent of a row. "
    "Right: the most confident mistakes.",
    order=1,
    applies=lambda run: run.classifies and not run.generates,
)
def confusion(run: Run) -> Figure:
    from sklearn.metrics import confusion_matrix

    indices = run.choose_images("test")
    labels, names = run.labels(indices), list(run.model.class_names)
    assert labels is not None, "a classifier has labels"
    images = run.images(indices)
    probabilities = run.classify(images)
    predicted = probabilities.argmax(axis=1)
    shares = 100 * confusion_matrix(labels, predicted, labels=range(len(names)), normalize="true")
    fig = new_figure(10.4, 5.6)
    left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
    left.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", [PAPER, LINES[0]]), vmin=0, vmax=100)
    left.grid(visible=False)
    ticks = [fitting(name, LONGEST) for name in names]
    turned = {"rotation": 30, "ha": "right"} if max(map(len, names)) >= 4 else {}
    left.set_xticks(range(len(names)), labels=ticks, parse_math=False, **turned)
    left.set_yticks(range(len(names)), labels=ticks, parse_math=False)
    if len(names) <= MOST:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.05:
                colour = PAPER if share > 50 else INK
                left.text(j, i, f"{share:.1f}", ha="center", va="center", fontsize=8, color=colour)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][: COLUMNS * ROWS]
    right.set_title(f"misclassified: {len(wrong):,} of {len(labels):,}")
    if len(worst):
        show_tiles(right, images[worst], COLUMNS, gap=max(images.shape[1] // 14, 1))
    else:
        right.set_axis_off()
    title(fig, run, f"Confusions: {np.mean(predicted == labels):.2%} of held-out images classified correctly")
    return fig
