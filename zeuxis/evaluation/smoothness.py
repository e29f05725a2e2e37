r"""Smoothness of the latent space: perceptual path length.

On the way between pairs of latents, the image at t is compared with that at t + e,

    PPL = E |f(G(slerp(z_1, z_2; t))) - f(G(slerp(z_1, z_2; t + e)))|^2 / e^2,

with f the judge's features in place of those of VGG. For a conditional model, the class stays fixed on the way.

Source: T. Karras, S. Laine and T. Aila, A Style-Based Generator Architecture for Generative Adversarial Networks,
CVPR 2019, section 4.1.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.features import FeatureJudge
from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, measure
from zeuxis.run import slerp

__all__ = ["path_length"]

PAIRS, STEP = 1000, 1e-2


@measure(
    gives={"path_length": "perceptual path length between samples, in squared feature distances"},
    better="low",
    # Codes are not points on a sphere: half of one digit and half of another has no meaning.
    applies=lambda material: has_judge(material) and not material.run.codes,
)
def path_length(material: Material) -> Figures:
    if isinstance(material.judge, FeatureJudge) and material.judge.rounds:
        return {"path_length": "its judge rounds images to bytes, in which so small steps are lost"}
    run, n = material.run, min(PAIRS, material.n)
    one, two = run.latents(n, material.seed + 1), run.latents(n, material.seed + 2)
    place = np.random.default_rng(material.seed).uniform(0, 1 - STEP, n)
    condition = run.in_turn(n)
    start, end = (
        material.features(
            run.decode(np.stack([slerp(a, b, t + e) for a, b, t in zip(one, two, place, strict=True)]), condition)
        )
        for e in (0.0, STEP)
    )
    lengths = np.square(start - end).sum(axis=1) / STEP**2
    return {"path_length": Value.mean(lengths, material.space)}
