"""What a classifier takes for what, and the held-out images it is most wrong about."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import INK, LINES, PAPER, new_figure, show_tiles, title
from zeuxis.run import Run

COLUMNS, ROWS, MOST = 4, 4, 20


@figure(
    "confusion",
    "Confusions",
    "Left: held-out images by their class (rows) and by what they were taken for (columns), in per cent of a row. "
    "Right: the most confident mistakes.",
    order=1,
    applies=lambda run: run.classifies and not run.generates,
)
def confusion(run: Run) -> Figure:
    from sklearn.metrics import confusion_matrix

    chosen = run.choose_images("test")
    labels, names = run.labels(chosen), list(run.model.class_names)
    assert labels is not None, "a classifier has labels"
    images = run.images(chosen)
    chances = run.classify(images)
    said = chances.argmax(axis=1)
    shares = 100 * confusion_matrix(labels, said, labels=range(len(names)), normalize="true")
    drawn = new_figure(10.4, 5.6)
    left, right = drawn.subplots(1, 2, width_ratios=(1.25, 1))
    left.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", [PAPER, LINES[0]]), vmin=0, vmax=100)
    left.grid(visible=False)
    left.set_xticks(range(len(names)), labels=names, rotation=0 if max(map(len, names)) < 4 else 30)
    left.set_yticks(range(len(names)), labels=names)
    if len(names) <= MOST:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.05:
                colour = PAPER if share > 50 else INK
                left.text(j, i, f"{share:.1f}", ha="center", va="center", fontsize=8, color=colour)
    wrong = np.flatnonzero(said != labels)
    worst = wrong[np.argsort(-chances[wrong, said[wrong]], kind="stable")][: COLUMNS * ROWS]
    right.set_title(f"taken for another class: {len(wrong):,} of {len(labels):,}")
    if len(worst):
        show_tiles(right, images[worst], COLUMNS, gap=max(images.shape[1] // 14, 1))
    else:
        right.set_axis_off()
    title(drawn, run, f"Confusions: {np.mean(said == labels):.2%} of held-out images named right")
    return drawn
