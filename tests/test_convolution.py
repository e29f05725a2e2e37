"""The convolutions compute what PyTorch's do, and so do their gradients, of any order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeuxis.data import Batch
from zeuxis.models import Iteration, build_model
from zeuxis.models.base import total
from zeuxis.nets import kernels
from zeuxis.nets.backend import plain
from zeuxis.nets.convolution import Conv, Deconv, Upsample
from zeuxis.recipe import load_recipe

CONVS = [  # channels, filters, kernel, stride, padding, side
    (3, 4, 5, 2, 2, 8), (1, 8, 4, 2, 1, 10), (3, 14, 3, 2, 1, 7), (2, 3, 3, 1, 1, 6), (2, 9, 3, 2, 0, 8),
    (1, 5, 3, 3, 1, 9), (13, 1, 5, 1, 2, 6), (60, 1, 7, 1, 0, 9), (50, 2, 5, 1, 1, 7), (5, 1, 3, 1, 1, 5),
]  # fmt: skip
DECONVS = [  # channels, filters, kernel, stride, padding, output padding, side
    (13, 1, 5, 2, 2, 1, 4), (4, 3, 4, 2, 1, 0, 3), (14, 3, 3, 2, 1, 1, 4), (4, 5, 3, 2, 1, 1, 4), (3, 2, 3, 1, 1, 0, 5),
    (2, 1, 2, 2, 0, 0, 3), (5, 1, 3, 4, 0, 1, 3), (18, 1, 6, 3, 2, 1, 4), (14, 3, 3, 1, 1, 0, 5),
]  # fmt: skip


def both(ours: Conv | Deconv, plain: nn.Module, side: int) -> tuple[Tensor, Tensor]:
    """Outputs, gradients, and gradients of a penalty on the gradients, of ours and of PyTorch's layer.

    An activation works on the outputs in place.
    """
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, ours.in_channels, side, side, dtype=torch.float64)
    found = []
    for layer in (ours.double(), plain.double()):
        given = x.clone().requires_grad_()
        y = nn.functional.leaky_relu_(layer(given), 0.9)
        weights = list(layer.parameters())
        first = torch.autograd.grad(y.square().sum(), [given, *weights], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [given, *weights])
        found.append(torch.cat([each.flatten() for each in (y, *first, *second)]))
    return found[0], found[1]


@pytest.mark.parametrize("many", [0, 2**15], ids=["as a product", "as PyTorch does"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("ours", "plain", "case"),
    [(Conv, nn.Conv2d, case) for case in CONVS] + [(Deconv, nn.ConvTranspose2d, case) for case in DECONVS],
)
def test_a_layer_computes_what_pytorchs_does(
    ours: Any, plain: Any, case: tuple[int, ...], bias: bool, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "MANY", many)
    monkeypatch.setattr(kernels, "MORE", many)
    *sizes, side = case
    torch.testing.assert_close(*both(ours(*sizes, bias=bias), plain(*sizes, bias=bias), side))


UPSAMPLED = [  # channels, filters, kernel, padding, scale, side
    (4, 3, 5, 2, 2, 4), (3, 5, 3, 1, 2, 5), (18, 1, 3, 1, 2, 4), (2, 3, 3, 1, 3, 3), (3, 2, 5, 0, 2, 4),
    (2, 2, 2, 0, 4, 3), (2, 3, 7, 3, 2, 5),
]  # fmt: skip


@pytest.mark.parametrize("case", UPSAMPLED)
def test_upsampling_and_the_convolution_after_it_are_computed_at_once(case: tuple[int, ...]) -> None:
    channels, filters, kernel, padding, scale, side = case
    up, conv = Upsample(scale), Conv(channels, filters, kernel, padding=padding).double()
    x = torch.randn(3, channels, side, side, dtype=torch.float64, requires_grad=True)

    def everything() -> Tensor:
        y = conv(up(x))
        first = torch.autograd.grad(y.square().sum(), [x, *conv.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, *conv.parameters()])
        return torch.cat([each.flatten() for each in (y, *first, *second)])

    apart = everything()
    up.before(conv)
    assert up(x) is x
    torch.testing.assert_close(everything(), apart)
    with plain():
        assert up(x) is not x
        torch.testing.assert_close(everything(), apart)


@pytest.mark.parametrize("after", [nn.ReLU(), Conv(2, 2, 3, stride=2), Conv(2, 2, 1)], ids=str)
def test_upsampling_is_done_where_no_convolution_takes_it_over(after: nn.Module) -> None:
    up, x = Upsample(2), torch.randn(1, 2, 3, 3)
    up.before(after)
    assert up(x).shape == (1, 2, 6, 6)


@pytest.mark.parametrize("layer", [Conv(2, 8, 3, 2, 1), Deconv(8, 2, 5, 2, 2, 1)], ids=["convolution", "transposed"])
def test_autocast_decides_the_number_format(layer: Conv | Deconv) -> None:
    x = torch.randn(2, layer.in_channels, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), layer(x), atol=0.05)
    y.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_small_images_in_bfloat16_are_correlated_as_a_product() -> None:
    """With the same sums, in float32 inside, as the layer that PyTorch would take."""
    ours, plain = Conv(32, 24, 3, 2, 1), nn.Conv2d(32, 24, 3, 2, 1)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(4, 32, 10, 10)
    for layer in (ours, plain):
        with torch.autocast("cpu", torch.bfloat16):
            layer(x).float().square().sum().backward()
    assert ours.weight.grad is not None and plain.weight.grad is not None
    assert (ours.weight.grad - plain.weight.grad).norm() < 0.01 * plain.weight.grad.norm()


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator's phase passes through the discriminator and leaves the gradients of its weights uncomputed."""
    calls = []
    correlate = kernels._Correlate.forward
    monkeypatch.setattr(
        kernels._Correlate, "forward", staticmethod(lambda *given: (calls.append(1), correlate(*given))[1])
    )
    first, second = Deconv(4, 3, 4, 2, 1), Conv(3, 2, 3, 2, 1)
    score = second(first(torch.randn(2, 4, 3, 3))).sum()
    score.backward(inputs=list(first.parameters()))
    assert len(calls) == 1
    assert first.weight.grad is not None and second.weight.grad is None


PLAIN = [
    "digits-vae",
    "digits-cgan",
    "infogan-62-10-2",
    "mnist-gan-mlp",
    "mnist-wgan-gp",
    "modern-gan-28",
    "modern-vae-28",
    "faces-vae-64-z1024",
]


@pytest.mark.parametrize("name", PLAIN)
def test_recipes_learn_alike_with_pytorchs_layers_alone(name: str) -> None:
    digits = {"data.source": "digits"}
    recipe = load_recipe(name, digits if name.startswith("faces") else digits | {"data.convert": True})

    def gradients() -> dict[str, Tensor]:
        model = build_model(recipe, tuple("0123456789")).eval()  # dropout has random numbers of its own
        batch = Batch(torch.rand(6, *model.image_shape, generator=torch.Generator().manual_seed(0)), torch.arange(6))
        iteration = Iteration(torch.zeros(()), torch.Generator().manual_seed(1), torch.device("cpu"), 6, lambda: batch)
        found = {}
        for phase in model.phases:
            weights = [p for name in phase.updates for p in model.net(name).parameters()]
            loss = total(phase.loss(iteration))
            parts = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
            found[phase.name] = torch.cat([loss.flatten(), *(p.flatten() for p in parts if p is not None)])
        return found

    ours = gradients()
    with plain():
        pytorchs = gradients()
    for phase, values in ours.items():
        torch.testing.assert_close(values, pytorchs[phase], rtol=1e-3, atol=1e-5 * float(values.abs().max()))


def test_plain_layers_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Conv(3, 14, 3, 2, 1), torch.randn(2, 3, 7, 7)
    monkeypatch.setattr(kernels, "convolve", None)
    with plain():
        program = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(program(x), layer.forward(x))
