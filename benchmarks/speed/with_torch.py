"""The task's networks in a plain PyTorch loop: modules of torch.nn, batches by index, one Adam per network, float32.

    python with_torch.py TASK.json [compiled]      # compiled: each network by torch.compile

As in PyTorch's own tutorial on GANs, fakes are generated once for both networks, and the generator's loss is propagated
back through the whole discriminator, with gradients of its parameters.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from rounds import claim_output, read_task, serve
from torch import nn
from torch.nn import functional as F


def layer(text: str, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns the module of a layer spec, and the shape of its output."""
    word, *rest = text.split()
    options = {part[0]: int(part[1:]) for part in rest if part[0] in "ks" and part[1:].isdigit()}
    kernel, stride, bias = options.get("k", 1), options.get("s", 1), "nobias" not in rest
    if word == "dense":
        return nn.Linear(shape[0], int(rest[0]), bias), (int(rest[0]),)
    if word == "conv":
        side = -(-shape[1] // stride)
        convolution = nn.Conv2d(shape[0], int(rest[0]), kernel, stride, (kernel - 1) // 2, bias=bias)
        return convolution, (int(rest[0]), side, side)
    if word == "deconv":
        padding = -(-(kernel - stride) // 2)
        transposed = nn.ConvTranspose2d(
            shape[0], int(rest[0]), kernel, stride, padding, 2 * padding - (kernel - stride), bias=bias
        )
        return transposed, (int(rest[0]), shape[1] * stride, shape[2] * stride)
    if word == "reshape":
        sizes = tuple(int(size) for size in rest[0].split("x"))
        return nn.Unflatten(1, sizes), sizes
    if word == "flatten":
        return nn.Flatten(), (int(np.prod(shape)),)
    if word == "globalmax":
        return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), shape[:1]
    if word == "bn":
        return (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(shape[0]), shape
    plain = {
        "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "lrelu": nn.LeakyReLU, "dropout": nn.Dropout,
    }  # fmt: skip
    return plain[word](*map(float, rest)), shape


def network(described: dict[str, Any]) -> nn.Sequential:
    """Returns a stack of layers; several heads are one dense layer."""
    shape, modules = tuple(described["shape"]), []
    for text in described["layers"]:
        module, shape = layer(text, shape)
        modules.append(module)
    return nn.Sequential(*modules)


def batches(task: dict[str, Any]) -> Any:
    """Yields shuffled batches of images, `(B, C, H, W)`, and one-hot classes, without end."""
    with np.load(task["images"]) as arrays:
        images = torch.from_numpy(arrays["train"]).permute(0, 3, 1, 2).contiguous().float() / 255
        labels = torch.from_numpy(arrays["labels"]).long() if len(arrays["labels"]) else None
    if task["range"] == "-1..1":
        images = images * 2 - 1
    while True:
        order = torch.randperm(len(images))
        for start in range(0, len(order) - task["batch"] + 1, task["batch"]):
            indices = order[start : start + task["batch"]]
            condition = F.one_hot(labels[indices], 10).float().to(task["device"]) if labels is not None else None
            yield images[indices].to(task["device"]), condition


def vae_loss(encoded: torch.Tensor, decode: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Returns the binary cross-entropy, summed over pixels, plus the KL divergence."""
    mean, logvar = encoded.chunk(2, dim=1)
    rebuilt = decode(mean + torch.exp(logvar / 2) * torch.randn_like(mean))
    error = F.binary_cross_entropy(rebuilt, x, reduction="sum")
    return (error - 0.5 * (1 + logvar - mean**2 - logvar.exp()).sum()) / len(x)


def main() -> None:
    """Builds the networks and trains until no more rounds are requested."""
    answers, task = claim_output(), read_task()
    device = task["device"]
    networks = {name: network(described).to(device) for name, described in task["networks"].items()}
    if "compiled" in sys.argv[2:]:
        networks = {name: torch.compile(net) for name, net in networks.items()}
    adam = {
        name: torch.optim.Adam(net.parameters(), lr=task["rate"], betas=tuple(task["betas"]))
        for name, net in networks.items()
    }
    data = batches(task)

    def learn(name: str, loss: torch.Tensor) -> None:
        adam[name].zero_grad()
        loss.backward()
        adam[name].step()

    def vae() -> None:
        x, _ = next(data)
        for optimizer in adam.values():
            optimizer.zero_grad()
        vae_loss(networks["encoder"](x), networks["decoder"], x).backward()
        for optimizer in adam.values():
            optimizer.step()

    def scores(x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        if condition is not None:
            x = torch.cat([x, condition[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
        logits: torch.Tensor = networks["discriminator"](x)
        return logits

    def generate(n: int, condition: torch.Tensor | None) -> torch.Tensor:
        z = torch.randn(n, task["latent"], device=device)
        images: torch.Tensor = networks["generator"](z if condition is None else torch.cat([z, condition], dim=1))
        return images

    def gan() -> None:
        x, condition = next(data)
        condition = condition if task["conditional"] else None
        ones, zeros = torch.ones(len(x), 1, device=device), torch.zeros(len(x), 1, device=device)
        fakes = generate(len(x), condition)
        entropy = F.binary_cross_entropy_with_logits
        learn("discriminator", entropy(scores(x, condition), ones) + entropy(scores(fakes.detach(), condition), zeros))
        for update in range(task["generator_updates"]):
            learn("generator", entropy(scores(generate(len(x), condition) if update else fakes, condition), ones))

    waiting = {"wait": torch.cuda.synchronize} if device == "cuda" else {}
    serve(vae if "encoder" in networks else gan, answers, **waiting)


if __name__ == "__main__":
    main()
