r"""Smoothness of the latent space: perceptual path length, and the worst jump.

Between pairs of latents the image at t is compared with that at t + e,

    PPL = E |f(G(slerp(z_1, z_2; t))) - f(G(slerp(z_1, z_2; t + e)))|^2 / e^2,

with f the judge's features in place of those of VGG. A conditional model keeps its class on the way.

Source: T. Karras, S. Laine and T. Aila, A Style-Based Generator Architecture for Generative Adversarial Networks,
CVPR 2019, section 4.1.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, measure
from zeuxis.run import slerp

__all__ = ["path_length"]

PAIRS, STEP = 1000, 1e-2


@measure(
    gives={"path_length": "perceptual path length between samples, in squared feature lengths"},
    better="low",
    # Codes are no places on a sphere: half of one digit and half of another lies nowhere.
    applies=lambda material: has_judge(material) and not material.run.codes,
)
def path_length(material: Material) -> Figures:
    run, n = material.run, min(PAIRS, material.n)
    one, two = run.latents(n, material.seed + 1), run.latents(n, material.seed + 2)
    place = np.random.default_rng(material.seed).uniform(0, 1 - STEP, n)
    condition = run.in_turn(n)
    here, there = (
        material.features(
            run.decode(np.stack([slerp(a, b, t + e) for a, b, t in zip(one, two, place, strict=True)]), condition)
        )
        for e in (0.0, STEP)
    )
    each = np.square(here - there).sum(axis=1) / STEP**2
    return {"path_length": Value.mean(each, material.space)}
