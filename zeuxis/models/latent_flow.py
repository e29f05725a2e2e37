r"""Latent flow: flow matching in the latent space of a trained autoencoder.

An image has thousands of numbers, most of which are details that a decoder can supply. With the encoder and decoder of
a trained run, frozen, the flow (`zeuxis.models.flow`) carries noise to latents instead of images,

    x0 ~ N(0, 1),   x1 ~ q(z|x), x from the data;   samples: decoder(x1),

so that its network works on a small grid of latents, and training and sampling take a fraction of the time. The noise
is the latent vector of a sample. What the autoencoder loses, no sample has: judge its reconstructions first.

The flow begins at noise of deviation 1, so the latents should be about as wide; an encoder whose means pass through a
batch norm has such latents. Data, encoder, decoder and number of latents are those of the run that `model.autoencoder`
names.

Sources: R. Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022; Q. Dao, H. Phung,
B. Nguyen and A. Tran, Flow Matching in Latent Space, 2023.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.models.autoencoder import posterior_of
from zeuxis.models.base import Inputs, Iteration
from zeuxis.models.flow import FlowMatching, FlowOptions, GuidanceOptions, Guided
from zeuxis.models.registry import register
from zeuxis.nets import Shape

__all__ = ["ConditionalLatentFlow", "LatentFlow"]


class LatentFlowOptions(FlowOptions):
    """Options of a flow on latents."""

    autoencoder: str = Field("", description="the trained run, as folder or name, of encoder and decoder")
    latent: int = Field(256, ge=1, le=100_000, description="latent dimensions of that run")


@register("latent-flow")
class LatentFlow(FlowMatching):
    """Flow matching from noise to the latents of a trained autoencoder."""

    Options = LatentFlowOptions
    options: LatentFlowOptions
    trained_networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    trained_option: ClassVar[str] = "autoencoder"

    @property
    def path_shape(self) -> Shape:
        return (self.options.latent,)

    def inputs(self) -> Inputs:
        return {"encoder": self.image_shape, "decoder": self.path_shape, **super().inputs()}

    def check(self) -> None:
        super().check()
        self.net("decoder").require_output(self.image_shape, "the recipe's image")

    def ends(self, iteration: Iteration) -> Tensor:
        with torch.no_grad():
            posterior = posterior_of(self.net("encoder"), iteration.images, self.options.latent)
            return posterior.sample(iteration.generator)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("decoder")(self.carried(latents, condition)).value


class ConditionalLatentFlowOptions(LatentFlowOptions, GuidanceOptions):
    """Options of a conditional flow on latents."""


@register("conditional-latent-flow")
class ConditionalLatentFlow(Guided, LatentFlow):
    """A latent flow conditional on the class, with guidance."""

    Options = ConditionalLatentFlowOptions
