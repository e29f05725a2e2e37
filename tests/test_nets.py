"""Networks as data: shapes, counts and errors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeuxis.errors import UserError
from zeuxis.models import build_model
from zeuxis.nets import Network, summary
from zeuxis.nets import layers as layers_module
from zeuxis.nets.layers import make_layer
from zeuxis.recipe import NetworkOptions, load_recipe
from zeuxis.trust import Trust


def test_half_of_a_batch_norm_is_trainable() -> None:
    table = summary("", build_model(load_recipe("mnist-gan")).networks)["networks"]["generator"]
    assert table["total"] - table["trainable"] == (50_176 + 512 + 256) // 2


SPECS = st.sampled_from(["conv", "deconv"])


@given(word=SPECS, kernel=st.integers(1, 7), stride=st.integers(1, 3), side=st.integers(4, 17))
@settings(max_examples=80, deadline=None)
def test_shapes_follow_same_padding(word: str, kernel: int, stride: int, side: int) -> None:
    module, shape = make_layer(f"{word} 5 k{kernel} s{stride}", (2, side, side), {})
    expected = math.ceil(side / stride) if word == "conv" else side * stride
    assert shape == (5, expected, expected)
    assert module(torch.zeros(1, 2, side, side)).shape[1:] == shape
    assert sum(p.numel() for p in module.parameters()) == 2 * 5 * kernel**2 + 5


@pytest.mark.parametrize(
    "layers",
    [
        ["conv 4 k3 s2 valid", "ln", "elu", "maxpool 2", "flatten", "dense 3", "softmax"],
        ["up 2", "conv 4 k4", "silu", "avgpool 2", "globalavg"],
        ["conv 4 k3 sn", "gelu", "globalmax", "dense 5 nobias sn", "bn", "tanh"],
        ["reshape 2x4x18", "dropout 0.1", "relu"],
    ],
)
def test_inferred_shapes_are_the_real_ones(layers: list[str]) -> None:
    network = Network(NetworkOptions(layers=layers), (1, 12, 12), {}, "a test")
    out = network(torch.rand(3, 1, 12, 12)).value
    assert out.shape == (3, *network.output_shape)
    assert [row.output for row in network.rows][-1] == network.output_shape


def test_spectral_normalisation_bounds_the_gain() -> None:
    torch.manual_seed(0)
    network = Network(NetworkOptions(layers=["dense 30 sn"], init="he"), (30,), {}, "a test").train()
    assert torch.linalg.matrix_norm(network.trunk[0].weight, 2).item() == pytest.approx(1, abs=0.1)
    for _ in range(30):  # each pass is one power iteration
        network(torch.rand(2, 30))
    weight = network.trunk[0].weight
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.02)


def test_heads_share_the_trunk() -> None:
    options = NetworkOptions(layers=["dense 4"], heads={"a": ["dense 2"], "b": ["dense 3", "sigmoid"]})
    network = Network(options, (5,), {}, "a test")
    out = network(torch.rand(7, 5)).heads
    assert {name: tuple(head.value.shape) for name, head in out.items()} == {"a": (7, 2), "b": (7, 3)}
    assert [row.layer for row in network.rows] == ["dense 4", "a: dense 2", "b: dense 3", "b: sigmoid"]


def test_logits_leave_out_the_last_activation() -> None:
    network = Network(NetworkOptions(layers=["dense 1", "sigmoid"]), (5,), {}, "a test")
    x = torch.rand(4, 5)
    torch.testing.assert_close(torch.sigmoid(network(x).logits), network(x).value)


def test_symbols_stand_for_sizes() -> None:
    network = Network(NetworkOptions(layers=["dense latent"]), (5,), {"latent": 9}, "a test")
    assert network.output_shape == (9,)


class Own(nn.Module):
    """A module of a user's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Odd(nn.Module):
    """A module that does what its argument says, in training or always."""

    def __init__(self, does: str, when: str = "always") -> None:
        super().__init__()
        self.layer, self.does, self.when = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), does, when

    def forward(self, x: torch.Tensor) -> object:
        if (self.when == "training" and not self.training) or (self.when == "later" and len(x) < 3):
            return self.layer(x)
        return {
            "raises": lambda: {}["key"],
            "wrong shape": lambda: self.layer(x[:, :2]),
            "no tensor": lambda: [self.layer(x)],
            "nothing": lambda: None,
            "whole numbers": lambda: self.layer(x).long(),
            "no batch": lambda: self.layer(x).sum(0),
            "detached": lambda: self.layer(x).detach(),
            "other shape": lambda: self.layer(x)[:, :2],
        }[self.does]()


class Scores(nn.Module):
    """A discriminator that can leave its sigmoid out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, logits: bool = False) -> torch.Tensor:
        return self.layer(x) if logits else torch.sigmoid(self.layer(x))


class Squashed(nn.Sequential):
    """A discriminator that cannot."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 1), nn.Sigmoid())


def own(kind: type[nn.Module], **arguments: object) -> Network:
    options = NetworkOptions(module=f"{__name__}.{kind.__name__}", arguments=arguments)
    return Network(options, (3,), {}, "recipe r, network n", trust=Trust(True))


@pytest.mark.parametrize("when", ["always", "training"])
@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("raises", "fails at input 3: KeyError: 'key'"),
        ("wrong shape", "fails at input 3: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("no tensor", "returns a list, not a tensor"),
        ("nothing", "returns a NoneType, not a tensor"),
        ("whole numbers", "a network returns floating-point numbers|backwards"),
        ("no batch", r"returns \(4,\)"),
        ("detached", "fails at input 3, backwards"),
    ],
)
def test_mistakes_inside_ones_own_module_are_told(does: str, message: str, when: str) -> None:
    with pytest.raises(UserError, match=rf"In recipe r, network n, the module '.*Odd' .*({message})"):
        own(Odd, does=does, when=when)


@pytest.mark.parametrize(
    ("does", "message"),
    [("raises", "KeyError"), ("no tensor", "not a tensor"), ("other shape", r"\(4, 2\) for \(4, 3\)")],
)
def test_and_so_are_those_of_later(does: str, message: str) -> None:
    network = own(Odd, does=does, when="later")
    assert not torch.cat([b.flatten().float() for name, b in network.named_buffers() if "mean" in name]).any()
    with pytest.raises(UserError, match=message):
        network(torch.zeros(4, 3)).value  # noqa: B018


def test_only_a_class_of_modules_is_called(tmp_path: Path) -> None:
    for module, arguments in (("os.mkdir", {"path": str(tmp_path / "x")}), ("pathlib.Path", {}), ("torch.nn", {})):
        options = NetworkOptions(module=module, arguments=arguments)
        with pytest.raises(UserError, match=r"not a subclass of torch.nn.Module"):
            Network(options, (3,), {}, "here", trust=Trust(True))
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="cannot be made: TypeError"):
        own(Own)


def test_ones_own_module_is_asked_for_logits() -> None:
    x = torch.rand(4, 3)
    network = own(Scores)
    torch.testing.assert_close(torch.sigmoid(network(x).logits), network(x).value)
    assert own(Squashed)(x).value.max() < 1
    with pytest.raises(UserError, match="give its forward an argument 'logits'"):
        own(Squashed)(x).logits  # noqa: B018


def test_a_dotted_path_gives_a_module() -> None:
    network = own(Own, width=6)
    assert network.output_shape == (6,)
    assert network.rows[0].parameters == 24


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["conv 4 k3", "cnov 4 k3"], r"recipe r, network n, layer 2 \('cnov 4 k3'\) at input 8x8x4.*'conv'"),
        (["dense 4"], "needs a vector.*put 'flatten' before it"),
        (["flatten", "conv 4 k3"], "needs an image.*put 'reshape"),
        (["reshape 3x3x3"], "needs 27 values but gets 64"),
        (["conv k3"], "needs a size"),
        (["conv 4"], "needs a kernel size"),
        (["conv latnet k3"], "not a size for 'conv'. Did you mean 'latent'"),
        (["conv 4 k3 valdi"], "'conv' has no option 'valdi'. Did you mean 'valid'"),
        (["conv 4 k9 valid"], "nothing is left"),
        (["dropout 2"], "from 0 to 0.99"),
        ([""], "there is no layer ''"),
        (["conv ² k3"], "'²' is not a size"),
        (["reshape ²x4x8"], "needs channels x height x width"),
        (["conv 4 k³"], "'k³' is not a size|no option"),
        (["conv 4 k999"], "from 1 to 255"),
        (["conv 99999999999999999999 k3"], "not a size"),
        (["flatten", "dense 60000000"], "layer 2.*parameters are more than"),
        (["conv 99999 k255"], "parameters are more than"),
        (["up 100000"], "too large"),
        (["maxpool 99999"], "nothing is left"),
    ],
)
def test_errors_name_place_and_remedy(layers: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Network(NetworkOptions(layers=layers), (1, 8, 8), {"latent": 2}, "recipe r, network n")


def test_a_networks_layers_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "MOST_PARAMETERS", 1000)
    with pytest.raises(UserError, match=r"layer 2 .*1,008 parameters are more than the 1,000"):
        Network(NetworkOptions(layers=["dense 24", "dense 24", "dense 3"]), (16,), {}, "here")


def test_a_generator_must_make_the_recipes_image() -> None:
    with pytest.raises(UserError, match=r"network generator, the output.* is 28x28x1.*needs 32x32x1"):
        build_model(load_recipe("mnist-gan", {"data.size": 32}))


def test_activations_in_place_change_no_gradient() -> None:
    layers = [
        "lrelu", "conv 4 k3 s2", "bn", "relu", "res 6 k3", "lrelu", "deconv 3 k4 s2", "ln", "lrelu 0.1",
        "flatten", "relu", "dense 8", "relu", "dense 1",
    ]  # fmt: skip
    network = Network(NetworkOptions(layers=layers), (2, 8, 8), {}, "here").double()
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    given = x.clone()
    found = []
    for in_place in (True, False):
        activations = [m for m in network.modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)]
        assert [m.inplace for m in activations].count(True) == (4 if in_place else 0)
        seen = given.clone().requires_grad_()
        score = network.trunk(seen).square().sum()
        (slope,) = torch.autograd.grad(score, seen, create_graph=True)
        (score + slope.square().sum()).backward()
        found.append([score.detach(), slope.detach(), *(p.grad.clone() for p in network.parameters())])
        network.zero_grad()
        for activation in activations:
            activation.inplace = False
    torch.testing.assert_close(*found)
    network.trunk(given)
    assert torch.equal(given, x), "what a network is given stays as it was"


def test_bfloat16_is_for_matrices_in_training_alone() -> None:
    options = NetworkOptions(layers=["conv 16 k3", "bn", "relu", "flatten", "dense 8"], init="he")
    network = Network(options, (1, 8, 8), {}, "here")
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = network(x).value
    exact.square().mean().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    network.precision = torch.bfloat16
    rounded = network(x).value
    rounded.square().mean().backward()
    assert rounded.dtype == torch.float32 and all(p.dtype == torch.float32 for p in network.parameters())
    # Eight bits of mantissa: far from equal to float32, and within a few parts in a hundred of it.
    assert 1e-5 < (rounded - exact).norm() / exact.norm() < 2e-2
    whole = torch.cat([g.flatten() for g in gradients])
    changed = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    assert (changed - whole).norm() / whole.norm() < 5e-2
    network.eval()
    evaluated = network(x).value
    network.precision = torch.float32
    assert torch.equal(evaluated, network(x).value)
    with torch.autocast("cpu", torch.bfloat16):
        asked_for = network(x).value
    assert asked_for.dtype == torch.float32 and 1e-5 < (asked_for - evaluated).norm() / evaluated.norm() < 2e-2


@pytest.mark.parametrize("shape", [(6, 4, 5), (4, 6, 5)])
def test_images_keep_their_layout_through_vectors(shape: tuple[int, int, int]) -> None:
    """The gradient of a flattened image is laid out as the image is, and so is an image made of a vector."""
    stack, out = make_layer("flatten", shape, {})
    back, _ = make_layer(f"reshape {'x'.join(map(str, shape))}", out, {})
    x = torch.randn(3, *shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = back(stack(x))
    assert torch.equal(y, x) and y.is_contiguous(memory_format=torch.channels_last)
    (seen,) = torch.autograd.grad(stack(x).square().sum(), [x])
    assert torch.equal(seen, 2 * x) and seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("last", ["tanh", "sigmoid"])
def test_a_pixel_near_the_end_of_its_range_can_come_back(last: str) -> None:
    """In bfloat16 the output would be 1 there, and its slope 0."""
    network = Network(NetworkOptions(layers=["dense 4", last]), (3,), {}, "here")
    bias = next(p for p in network.parameters() if p.dim() == 1)
    torch.nn.init.constant_(bias, 4.5 if last == "tanh" else 9.0)
    network.precision = torch.bfloat16
    y = network(torch.zeros(2, 3)).value
    assert y.min() > 0.999 and y.max() < 1
    y.sum().backward()
    assert bias.grad is not None and (bias.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.99])
def test_dropout_drops_that_share_at_random_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    dropout, _ = make_layer(f"dropout {p}", (7, 15, 15), {})  # an odd number of elements
    ones = torch.ones(63, 7, 15, 15, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    torch.manual_seed(0)
    y = dropout(ones)
    kept = (y != 0).float()
    share = 1 - round(256 * p) / 256
    error = 4 * (share * (1 - share) / kept.numel()) ** 0.5
    assert abs(share - (1 - p)) <= 1 / 512 and abs(kept.mean() - share) <= error
    assert y.is_contiguous(memory_format=torch.channels_last) and y.dtype == dtype
    assert y[y != 0].float().unique().tolist() == pytest.approx([1 / share], rel=4e-3)
    # Neighbours in memory, images and channels know nothing of each other.
    for a, b in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1]), (kept[..., 1:], kept[..., :-1])):
        assert abs((a * b).mean() - share**2) < 2 * error + 1e-6
    y.sum().backward()
    assert ones.grad is not None and torch.equal(ones.grad, y), "the same mask backwards"
    torch.manual_seed(0)
    assert torch.equal(dropout(ones), y)
    assert dropout(torch.ones(5, 33)).shape == (5, 33)
    assert torch.equal(dropout.eval()(ones), ones)
