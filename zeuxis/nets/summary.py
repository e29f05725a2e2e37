"""The summary tables of a model's networks: layers, output shapes, parameters, totals."""

from __future__ import annotations

from typing import Any

from torch import nn

from zeuxis.nets.network import Network

__all__ = ["summary"]


def summary(recipe: str, networks: nn.ModuleDict) -> dict[str, Any]:
    """Returns the summary tables of all networks as plain data.

    Shapes are given as (height, width, channels). A batch norm of C channels counts 4C parameters, 2C of them
    trainable.

    Returns:
        `{"recipe": str, "networks": {NAME: {"total": int, "trainable": int,
        "layers": [{"layer": str, "output": [H, W, C] or [N], "parameters": int}]}}}`
    """
    tables = {}
    for name, network in networks.items():
        if isinstance(network, Network):
            tables[name] = {
                "total": sum(row.parameters for row in network.rows),
                "trainable": sum(row.trainable for row in network.rows),
                "layers": [
                    {"layer": row.layer, "output": [*row.output[1:], row.output[0]], "parameters": row.parameters}
                    for row in network.rows
                ],
            }
    return {"recipe": recipe, "networks": tables}
