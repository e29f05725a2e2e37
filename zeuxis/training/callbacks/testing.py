"""Tests on the held-out images during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zeuxis.data.batches import make_batch
from zeuxis.threads import paced
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.distributed import ALONE, Share

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Testing", "held_out_terms"]

CHUNK = 256


class Testing(Callback):
    """Computes the means of the model's test terms over the held-out images; other callbacks add theirs."""

    everywhere = True

    def iterated(self, trainer: Trainer) -> None:
        if not trainer.is_due(trainer.options.test_every) and not trainer.complete:
            return
        trainer.tests = held_out_terms(trainer, share=trainer.share)
        with trainer.as_used():
            for callback in trainer.callbacks:
                trainer.tests |= callback.tested(trainer)


def held_out_terms(trainer: Trainer, most: int | None = None, share: Share = ALONE) -> dict[str, float]:
    """Computes the model's test terms with the weights that a run of it uses: the average, if there is one.

    Every chunk of images has its own seed, so that its numbers do not depend on which process tests it, or when.

    Args:
        trainer: the trainer, with model and data.
        most: number of images to test; all if None.
        share: of the chunks, where several processes test together.
    """
    totals: dict[str, Tensor] = {}
    indices, model = trainer.dataset.test[:most], trainer.model
    with trainer.as_used(), torch.no_grad():
        for start in paced(range(0, len(indices), CHUNK)[share.rank :: share.size], "test"):
            trainer.generator.manual_seed(start)
            part = indices[start : start + CHUNK]
            batch = make_batch(trainer.dataset, model.recipe.data, part, trainer.device)
            terms = model.test(trainer.iteration_on(batch))
            if not terms:
                break
            for name, value in terms.items():
                totals[name] = totals.get(name, torch.zeros((), device=trainer.device)) + value * len(part)
    return share.totals({name: float(total / len(indices)) for name, total in totals.items()})
