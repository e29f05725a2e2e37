"""safetensors: the weights of the networks that generate, and the recipe that says how they are wired."""

from __future__ import annotations

from pathlib import Path

from zeuxis.errors import UserError
from zeuxis.export import EXPORTERS, Layout
from zeuxis.export.parts import generator_facts
from zeuxis.files import write_file
from zeuxis.run import Run

__all__ = ["to_safetensors"]


@EXPORTERS.add("safetensors")
def to_safetensors(run: Run, folder: Path, layout: Layout) -> list[str]:
    """Writes `generator.safetensors` and `recipe.toml`.

    Raises:
        UserError: for a model that generates no images.
    """
    from safetensors.torch import save

    if not run.generates:
        raise UserError(f"{run.path} generates no images, so there is no generator to export.")
    # A model on another run's latents trains no decoder, and needs it all the same.
    names = dict.fromkeys([*run.model.generating_networks, *({"decoder"} & set(run.model.trained_networks))])
    networks = {name: run.model.net(name) for name in names}
    tensors = {
        f"{name}.{key}": tensor.contiguous()
        for name, net in networks.items()
        for key, tensor in net.state_dict().items()
    }
    facts = generator_facts(run, layout)
    write_file(folder / "generator.safetensors", save(tensors, facts))
    write_file(folder / "recipe.toml", run.recipe_in_use.to_toml())
    count = sum(tensor.numel() for tensor in tensors.values())
    return [f"generator.safetensors: {count:,} numbers of {', '.join(networks)}; recipe.toml: their layers"]
