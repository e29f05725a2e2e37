"""Networks of named inputs: skips, modulation, attention, U-Nets, transformers, and modules of the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zeuxis.errors import UserError
from zeuxis.models import Iteration, Model, ModelOptions, phase, register
from zeuxis.models.base import Input, Inputs, Terms
from zeuxis.models.samplers import SAMPLERS
from zeuxis.nets import Conditioning, Network, layer, summary
from zeuxis.nets.blocks import Attention, attend
from zeuxis.nets.context import TIME_SIZE, waves
from zeuxis.nets.layers import LAYERS, GroupNorm, Made, Shape, Spec
from zeuxis.recipe import NetworkOptions
from zeuxis.trust import Trust

CONDITIONING = Conditioning(condition=3, time=True)
# A U-Net in words: two resolutions, skips by name, attention at the lower one, modulated by time and class.
WORDS = [
    "conv 16 k3", "res 16 k3 film", "keep high", "down 2", "res 32 k3 film", "attend 4", "res 32 k3 film",
    "up 2", "cat high", "res 16 k3 gn film", "gn 4", "silu", "conv channels k3",
]  # fmt: skip


def network(
    layers: list[str], shape: Shape = (1, 8, 8), conditioning: Conditioning | None = CONDITIONING, **options: object
) -> Network:
    return Network(
        NetworkOptions(layers=layers, **options),
        shape,
        {"channels": shape[0]},
        "recipe r, network n",
        conditioning=conditioning,
    )


def given(count: int = 2) -> dict[str, Tensor]:
    return {"time": torch.rand(count, 1), "condition": torch.eye(3)[:count]}


def stirred(made: Network) -> Network:
    """With weights everywhere: what begins at zero would hide what it is connected to."""
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (WORDS, (1, 8, 8)),
        (["unet 8 d3 h4", "silu", "conv channels k3"], (3, 12, 12)),
        (["dit 16 d2 p4 h4"], (3, 12, 8)),
        (["dense 16", "film", "silu", "dense 5"], (5,)),
    ],
)
def test_a_network_hears_of_time_and_class_and_learns_through_both(layers: list[str], shape: Shape) -> None:
    made = stirred(network(layers, shape))
    x = torch.randn(2, *shape)
    conditioning = given()
    out = made(x, **conditioning).value
    assert out.shape == (2, *made.output_shape)
    for name, other in (("time", torch.rand(2, 1)), ("condition", torch.eye(3)[[2, 0]])):
        assert not torch.allclose(made(x, **(conditioning | {name: other})).value, out), f"{name} is heard"
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_what_begins_at_zero_leaves_the_input_alone() -> None:
    made = network(["film", "attend 1", "res 1 k3 film"])
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(made(x, **given()).value, x)


def test_skips_carry_what_was_kept() -> None:
    x = torch.rand(1, 1, 4, 4)
    small = Network(NetworkOptions(layers=["keep a", "down 2", "up 2", "cat a"]), (1, 4, 4), {}, "here")
    out = small(x).value
    assert torch.equal(out[:, 1:], x)
    assert torch.allclose(out[:, 0, :2, :2], x[0, 0, :2, :2].mean())
    summed = Network(NetworkOptions(layers=["keep a", "relu", "add a"]), (1, 4, 4), {}, "here")
    assert torch.equal(summed(x - 0.5).value, (x - 0.5).relu() + (x - 0.5)), "an activation overwrites nothing kept"


def test_attention_is_that_of_the_paper() -> None:
    attention = Attention(8, heads=2)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 8, 2, 5)
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    q, k, v = (
        tokens @ w.T + b for w, b in zip(attention.mix.weight.chunk(3), attention.mix.bias.chunk(3), strict=True)
    )
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5, dim=2)
        heads.append(weights @ v[..., part])
    expected = x + attention.out(torch.cat(heads, dim=2)).transpose(1, 2).reshape(3, 8, 2, 5)
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-4)


def test_a_transformer_sees_every_patch() -> None:
    made = stirred(network(["dit 16 d1 p2 h2"], (1, 4, 4)))
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    conditioning = given(1)
    made(x, **conditioning).value[0, 0, 0, 0].backward()
    assert x.grad is not None and (x.grad != 0).all()


# -- what no layer takes stands beside the input ------------------------------------------------------


def test_what_no_layer_takes_stands_beside_the_input() -> None:
    made = network(["dense 4"], (5,))
    assert made.input_shape == (5 + 3 + TIME_SIZE,) and made.embedding is None
    x, conditioning = torch.rand(2, 5), given()
    joined = torch.cat([x, waves(conditioning["time"]), conditioning["condition"]], dim=1)
    assert torch.equal(made(x, **conditioning).value, made.trunk(joined))
    planes = network(["conv 2 k1"], (1, 4, 4), Conditioning(condition=3))
    x = torch.rand(2, 1, 4, 4)
    joined = torch.cat([x, conditioning["condition"][:, :, None, None].expand(-1, -1, 4, 4)], dim=1)
    assert torch.equal(planes(x, condition=conditioning["condition"]).value, planes.trunk(joined))


def test_the_embedding_is_counted_and_of_the_width_that_was_asked_for() -> None:
    made = network(["film"], conditioning=Conditioning(condition=3), embedding=24)
    assert [row.layer for row in made.rows] == ["embedding", "film"]
    assert made.rows[0].output == (24,) and made.rows[0].parameters == 3 * 24 + 24
    assert sum(row.parameters for row in made.rows) == sum(p.numel() for p in made.parameters())


def test_a_unet_is_summarised_as_a_chain_is() -> None:
    made = network(WORDS)
    table = summary("r", nn.ModuleDict({"n": made}))["networks"]["n"]
    assert table["total"] == sum(p.numel() for p in made.parameters())
    shapes = {row["layer"]: row["output"] for row in table["layers"]}
    assert (
        shapes["down 2"] == [4, 4, 16] and shapes["cat high"] == [8, 8, 48] and shapes["conv channels k3"] == [8, 8, 1]
    )


@pytest.mark.parametrize(
    ("layers", "conditioning", "message"),
    [
        (["keep high", "down 2", "cat high"], None, r"layer 3 \('cat high'\) at input 4x4x1: 'high' was kept at 8x8x1"),
        (["keep high", "cat hihg"], CONDITIONING, "no earlier layer is 'keep hihg'.*'high'"),
        (["keep a", "conv 2 k3", "add a"], None, "'a' was kept at 8x8x1, which cannot be added to 8x8x2"),
        (["keep"], CONDITIONING, "'keep' needs a name"),
        (["res 8 k3 film"], None, "'film' modulates by a time or a condition, but this network takes neither"),
        (
            ["conv 6 k3", "attend 4"],
            CONDITIONING,
            "'attend' with 4 heads needs a multiple of 4 channels, but there are 6",
        ),
        (["unet 8 d5"], CONDITIONING, "'unet' of 5 resolutions needs sides divisible by 16, not 8x8x1"),
        (["dit 16 p3"], CONDITIONING, "'dit' cuts patches of 3x3 pixels"),
        (["dit 18 h3"], CONDITIONING, "'dit' needs a width that is a multiple of 4, not 18"),
        (["gn 8"], None, "'gn 8' needs a multiple of 8 channels, but gets 1"),
        (["flatten", "unet 8"], CONDITIONING, "'unet' needs an image"),
    ],
)
def test_mistakes_name_the_layer(layers: list[str], conditioning: Conditioning | None, message: str) -> None:
    with pytest.raises(UserError, match=f"In recipe r, network n, .*{message}"):
        network(layers, conditioning=conditioning)


# -- modules of the user's own ------------------------------------------------------------------------


class Mine(nn.Module):
    """Takes the conditioning that it has arguments for, and is sized by the recipe's symbols."""

    def __init__(self, shape: Shape, conditioning: Conditioning, latent: int, width: int = 4) -> None:
        super().__init__()
        self.sizes = (shape, conditioning, latent)
        self.enter, self.heads = nn.Linear(shape[0] + 1, width), nn.Linear(width + conditioning.condition, 2)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> dict[str, Tensor]:
        inner = self.enter(torch.cat([x, time], dim=1))
        return {"real": self.heads(torch.cat([inner, condition], dim=1))[:, :1], "inner": inner}


class Deaf(nn.Module):
    """Has no arguments for the conditioning, which stands beside its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer = nn.Linear(*shape, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_module_of_ones_own_gets_what_blocks_get() -> None:
    options = NetworkOptions(module=f"{__name__}.Mine", arguments={"width": 6})
    made = Network(options, (5,), {"latent": 7, "channels": 1}, "here", conditioning=CONDITIONING, trust=Trust(True))
    mine = made.trunk.get_submodule("0")
    assert isinstance(mine, Mine) and mine.sizes == ((5,), CONDITIONING, 7)
    assert made.head_shapes == {"real": (1,), "inner": (6,)}
    out = made(torch.rand(2, 5), **given())
    assert out.heads["real"].logits.shape == (2, 1) and out.heads["inner"].value.shape == (2, 6)
    deaf = Network(
        NetworkOptions(module=f"{__name__}.Deaf"), (5,), {}, "here", conditioning=CONDITIONING, trust=Trust(True)
    )
    assert deaf(torch.rand(2, 5), **given()).value.shape == (2, 2)


# -- words of one's own -------------------------------------------------------------------------------


def test_a_word_of_ones_own_takes_options_and_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAYERS, "_entries", dict(LAYERS._entries))

    class Shift(nn.Module):
        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor, context: object) -> Tensor:
            return x + self.by

    @layer("shift", "b")
    def shift(spec: Spec, shape: Shape) -> Made:
        return Shift(spec.numbers.get("b", 1)), shape

    made = network(["shift b3", "shift"], conditioning=None)
    x = torch.rand(1, 1, 8, 8)
    assert torch.allclose(made(x).value, x + 4)
    with pytest.raises(UserError, match=r"'shift' has no option 'c3'|is not a size|c3"):
        network(["shift x c3"], conditioning=None)


# -- samplers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_a_sampler_converges_at_its_order(name: str, order: int) -> None:
    """dx/dt = x cos t, so x(1) = x(0) exp(sin 1)."""
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    exact = x * torch.exp(torch.sin(torch.ones(())).double())
    errors = [
        (SAMPLERS[name](lambda x, t: x * t.double().cos(), x, steps) - exact).abs().max().item() for steps in (32, 64)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


# -- a recipe -----------------------------------------------------------------------------------------


class FlowOptions(ModelOptions):
    latent: int = 8


@register("small-flow")
class SmallFlow(Model):
    """Noise to images along straight lines, given the class: what a U-Net in a recipe is for."""

    Options = FlowOptions
    generating_networks = ("velocity",)
    conditional = True

    def inputs(self) -> Inputs:
        return {"velocity": Input(self.image_shape, Conditioning(condition=self.condition_size, time=True))}

    @phase("flow", updates="velocity")
    def learn(self, iteration: Iteration) -> Terms:
        noise = iteration.randn(*iteration.images.shape)
        time = torch.rand(len(noise), 1, generator=iteration.generator)
        x = torch.lerp(noise, iteration.images, time[:, :, None, None])
        velocity = self.net("velocity")(x, time=time, condition=self.condition(iteration)).value
        return {"flow": (velocity - (iteration.images - noise)).square().mean()}


FLOW = """
[data]
source = "digits"
size = 8
range = "-1..1"
[model]
name = "small-flow"
[networks.velocity]
embedding = 32
layers = LAYERS
[training]
steps = 60
batch_size = 32
log_every = 10
optimizer = { learning_rate = 3e-3 }
"""


@pytest.mark.parametrize(
    "layers",
    [
        WORDS,
        pytest.param(["unet 16 d2 h4", "conv channels k3"], marks=pytest.mark.slow),
        pytest.param(["dit 32 d2 p2 h4"], marks=pytest.mark.slow),
    ],
)
def test_a_unet_is_a_recipes_layers_and_learns(layers: list[str], tmp_path: Path) -> None:
    import zeuxis
    from zeuxis.figures import draw_all

    path = tmp_path / "flow.toml"
    path.write_text(FLOW.replace("LAYERS", str(layers).replace("'", '"')))
    run = zeuxis.train(path, runs=tmp_path, progress=False)
    losses = run.series("flow/flow")[1]
    assert losses[-1] < 0.8 * losses[0]
    (drawn,) = draw_all(run, only=["architecture"], progress=False).values()
    assert drawn.stat().st_size > 5000


def test_a_network_is_drawn_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from zeuxis import cli

    (tmp_path / "flow.toml").write_text(FLOW.replace("LAYERS", str(WORDS).replace("'", '"')))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["zeuxis", "summary", "flow.toml", "--draw", "net.svg"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    text = (tmp_path / "net.svg").read_text("utf-8")
    assert text.lstrip().startswith("<?xml") and len(re.findall(r"<path", text)) > len(WORDS)


BLOCKS = [["unet 8 d2 h2", "conv channels k3"], ["dit 16 d3 p2 h2"], ["res 8 k3", "res 8 k3"]]


@pytest.mark.parametrize("layers", BLOCKS)
def test_recomputed_blocks_store_less_and_give_the_same_gradients(layers: list[str]) -> None:
    images, time = torch.rand(4, 3, 16, 16), torch.rand(4, 1)
    found = []
    for recompute in (False, True):
        torch.manual_seed(1)
        network = Network(
            NetworkOptions(layers=layers, recompute=recompute), (3, 16, 16), {"channels": 3}, "a test",
            conditioning=Conditioning(time="res 8 k3" not in layers),
        )  # fmt: skip
        stored: dict[int, int] = {}

        def pack(x: torch.Tensor, stored: dict[int, int] = stored) -> torch.Tensor:
            stored[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = network(images, time=time if network.conditioning.time else None).value.square().mean()
        first = sum(stored.values())
        loss.backward()
        found.append((first, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}))
    (plain, gradients), (less, again) = found
    assert less < 0.7 * plain
    assert gradients.keys() == again.keys() and any(grad.abs().sum() > 0 for grad in gradients.values())
    for name, grad in gradients.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("positions", [16, 400])
def test_attention_in_bfloat16_is_that_of_float32(positions: int) -> None:
    mixed = torch.randn(2, positions, 3 * 32, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(2, positions, 32, generator=torch.Generator().manual_seed(1))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        x = mixed.to(dtype).requires_grad_()
        y = attend(x, 4)
        (gradient,) = torch.autograd.grad((y * direction).sum(), x)
        assert y.dtype == gradient.dtype == dtype
        found.append((y.float(), gradient.float()))
    for ours, exact in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("groups", [1, 4])
def test_group_normalisation_in_bfloat16_is_that_of_float32(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = (3 + torch.randn(3, 16, 5, 7, generator=generator)).contiguous(memory_format=torch.channels_last)
    direction = torch.randn(3, 16, 5, 7, generator=generator)
    norm = GroupNorm(groups, 16)
    torch.nn.init.normal_(norm.weight, generator=generator)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        x = image.to(dtype).requires_grad_()
        y = norm(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        (first,) = torch.autograd.grad((y * direction).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        found.append((y.float(), first.float(), second.float()))
    for ours, exact in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=0.05 * float(exact.abs().max()))
