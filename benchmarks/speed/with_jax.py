"""The task's networks in JAX, with Flax and Optax: one compiled step on donated state, batches fetched ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rounds import claim_output, read_task, serve

AHEAD = 4


def layer(text: str, shape: tuple[int, ...], rngs: nnx.Rngs) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """Returns the layer of a layer spec, and the shape of its output; images are channels-last."""
    word, *rest = text.split()
    options = {part[0]: int(part[1:]) for part in rest if part[0] in "ks" and part[1:].isdigit()}
    kernel, stride, bias = options.get("k", 1), options.get("s", 1), "nobias" not in rest
    if word == "dense":
        return nnx.Linear(shape[0], int(rest[0]), use_bias=bias, rngs=rngs), (int(rest[0]),)
    if word in {"conv", "deconv"}:
        sizes = {"kernel_size": (kernel, kernel), "use_bias": bias, "rngs": rngs}
        if word == "conv":
            made: Any = nnx.Conv(shape[-1], int(rest[0]), strides=(stride, stride), padding="SAME", **sizes)
        else:
            made = spread(nnx.Conv(shape[-1], int(rest[0]), padding="VALID", **sizes), kernel, stride)
        height, width = (-(-side // stride) if word == "conv" else side * stride for side in shape[:2])
        return made, (height, width, int(rest[0]))
    if word == "reshape":
        channels, height, width = map(int, rest[0].split("x"))
        return lambda x: x.reshape(len(x), height, width, channels), (height, width, channels)
    if word == "flatten":
        return lambda x: x.reshape(len(x), -1), (int(np.prod(shape)),)
    if word == "globalmax":
        return lambda x: x.max(axis=(1, 2)), shape[-1:]
    if word == "bn":
        return nnx.BatchNorm(shape[-1], rngs=rngs), shape
    if word == "dropout":
        return nnx.Dropout(float(rest[0]), rngs=rngs), shape
    if word == "lrelu":
        return partial(nnx.leaky_relu, negative_slope=float(rest[0])), shape
    return {"relu": nnx.relu, "tanh": nnx.tanh, "sigmoid": nnx.sigmoid}[word], shape


def spread(conv: nnx.Conv, kernel: int, stride: int) -> nnx.Sequential:
    """Returns a transposed convolution: zeros between the pixels, then a convolution.

    With `nnx.ConvTranspose`, the gradients of its kernel take many times as long on a CPU.
    """
    total = kernel + stride - 2
    side = (-(-total // 2), total // 2, stride - 1)

    def apart(x: jax.Array) -> jax.Array:
        return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), side, side, (0, 0, 0)])

    return nnx.Sequential(apart, conv)


def network(described: dict[str, Any], rngs: nnx.Rngs) -> nnx.Sequential:
    """Returns a stack of layers."""
    channels, *sides = described["shape"]
    shape, stack = (*sides, channels), []
    for text in described["layers"]:
        made, shape = layer(text, shape, rngs)
        stack.append(made)
    return nnx.Sequential(*stack)


def batches(task: dict[str, Any]) -> Generator[tuple[jax.Array, jax.Array]]:
    """Yields shuffled batches of images, `(B, H, W, C)`, and one-hot classes, without end; a thread fetches ahead."""
    with np.load(task["images"]) as arrays:
        images = arrays["train"].astype(np.float32) / 255
        labels = arrays["labels"].astype(int) if task["conditional"] else np.zeros(len(images), int)
    if task["range"] == "-1..1":
        images = images * 2 - 1
    classes, generator = np.eye(10, dtype=np.float32)[labels], np.random.default_rng(0)

    def indices() -> Iterator[np.ndarray]:
        while True:
            order, size = generator.permutation(len(images)), task["batch"]
            yield from (order[start:stop] for start, stop in pairwise(range(0, len(order) + 1, size)))

    def fetch(chosen: np.ndarray) -> tuple[jax.Array, jax.Array]:
        return jax.device_put((images[chosen], classes[chosen]))

    order = indices()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(fetch, next(order)) for _ in range(AHEAD))
        while True:
            waiting.append(thread.submit(fetch, next(order)))
            yield waiting.popleft().result()


class Networks:
    """The task's networks as functions of their state.

    A network's state is a pair: its parameters, and its statistics and random numbers.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        rngs, beta = nnx.Rngs(0), task["betas"]
        self.adam = optax.adam(task["rate"], b1=beta[0], b2=beta[1])
        self.graphs, self.start = {}, {}
        for name, described in task["networks"].items():
            self.graphs[name], *self.start[name] = nnx.split(network(described, rngs), nnx.Param, ...)
        self.moments = {name: self.adam.init(parameters) for name, (parameters, _) in self.start.items()}

    def __call__(self, name: str, parameters: Any, rest: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        """Returns the output of a network, and its statistics and random numbers afterwards."""
        net = nnx.merge(self.graphs[name], parameters, rest, copy=True)  # variables of this trace
        y = net(x)
        return y, nnx.split(net, nnx.Param, ...)[2]

    def learned(self, name: str, slopes: Any, parameters: Any, moments: Any) -> tuple[Any, Any]:
        """Returns the parameters and the moments after an update."""
        change, moments = self.adam.update(slopes, moments, parameters)
        return optax.apply_updates(parameters, change), moments


def trainer(task: dict[str, Any]) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Returns the state of a training, and its compiled step: state, images, classes -> state, loss."""
    run = Networks(task)
    state = {"networks": run.start, "moments": run.moments, "key": jax.random.key(0)}

    def learn(state: dict[str, Any], name: str, slopes: Any, rest: Any) -> None:
        parameters, state["moments"][name] = run.learned(
            name, slopes, state["networks"][name][0], state["moments"][name]
        )
        state["networks"][name] = [parameters, rest]

    def vae(state: dict[str, Any], x: jax.Array, _: jax.Array) -> jax.Array:
        state["key"], key = jax.random.split(state["key"])
        encoder, decoder = state["networks"]["encoder"], state["networks"]["decoder"]

        def loss(parameters: tuple[Any, Any]) -> tuple[jax.Array, Any]:
            encoded, encoder_rest = run("encoder", parameters[0], encoder[1], x)
            mean, logvar = jnp.split(encoded, 2, axis=1)
            z = mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape)
            rebuilt, decoder_rest = run("decoder", parameters[1], decoder[1], z)
            rebuilt = jnp.clip(rebuilt, 1e-7, 1 - 1e-7)
            error = -(x * jnp.log(rebuilt) + (1 - x) * jnp.log(1 - rebuilt)).sum(axis=(1, 2, 3))
            divergence = -0.5 * (1 + logvar - mean**2 - jnp.exp(logvar)).sum(axis=1)
            return (error + divergence).mean(), (encoder_rest, decoder_rest)

        (value, rests), slopes = jax.value_and_grad(loss, has_aux=True)((encoder[0], decoder[0]))
        for name, slope, rest in zip(("encoder", "decoder"), slopes, rests, strict=True):
            learn(state, name, slope, rest)
        return value

    def entropy(logits: jax.Array, wanted: float) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, wanted)).mean()

    def scores(parameters: Any, rest: Any, x: jax.Array, condition: jax.Array) -> tuple[jax.Array, Any]:
        if task["conditional"]:
            maps = jnp.broadcast_to(condition[:, None, None, :], (*x.shape[:3], condition.shape[1]))
            x = jnp.concatenate([x, maps], axis=3)
        return run("discriminator", parameters, rest, x)

    def update_generator(state: dict[str, Any], fakes: jax.Array, pull: Any, rest: Any, condition: jax.Array) -> None:
        def fooled(fakes: jax.Array) -> tuple[jax.Array, Any]:
            logits, after = scores(*state["networks"]["discriminator"], fakes, condition)
            return entropy(logits, 1.0), after

        slope, after = jax.grad(fooled, has_aux=True)(fakes)
        state["networks"]["discriminator"][1] = after
        learn(state, "generator", pull(slope)[0], rest)

    def generate(state: dict[str, Any], condition: jax.Array) -> tuple[jax.Array, Any, Any]:
        """Returns fakes, the function from their gradient to that of the parameters, and the network's statistics."""
        state["key"], key = jax.random.split(state["key"])
        z = jax.random.normal(key, (task["batch"], task["latent"]))
        if task["conditional"]:
            z = jnp.concatenate([z, condition], axis=1)
        parameters, rest = state["networks"]["generator"]
        fakes, pull, after = jax.vjp(lambda p: run("generator", p, rest, z), parameters, has_aux=True)
        return fakes, pull, after

    def gan(state: dict[str, Any], x: jax.Array, condition: jax.Array) -> jax.Array:
        fakes, pull, after = generate(state, condition)  # once for both networks
        discriminator, rest = state["networks"]["discriminator"]

        def told(parameters: Any) -> tuple[jax.Array, Any]:
            real, seen = scores(parameters, rest, x, condition)
            fake, seen = scores(parameters, seen, fakes, condition)
            return entropy(real, 1.0) + entropy(fake, 0.0), seen

        (value, seen), slopes = jax.value_and_grad(told, has_aux=True)(discriminator)
        learn(state, "discriminator", slopes, seen)
        for update in range(task["generator_updates"]):
            if update:
                fakes, pull, after = generate(state, condition)
            update_generator(state, fakes, pull, after, condition)
        return value

    work = vae if "encoder" in task["networks"] else gan

    @partial(jax.jit, donate_argnums=0)
    def step(state: dict[str, Any], x: jax.Array, condition: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        state = jax.tree.map(lambda leaf: leaf, state)  # new containers, which the step changes
        value = work(state, x, condition)
        return state, value

    return state, step


def main() -> None:
    """Builds the networks and trains until no more rounds are requested."""
    answers, task = claim_output(), read_task()
    state, step = trainer(task)
    data = batches(task)

    def iterate() -> None:
        nonlocal state
        state, _ = step(state, *next(data))

    serve(iterate, answers, lambda: jax.block_until_ready(state))
    data.close()


if __name__ == "__main__":
    main()
