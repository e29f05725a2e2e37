"""A user's own pictures in latent space: where a model finds them, and in which directions they can be changed."""

from zeuxis.latent.directions import Directions, attribute_direction, directions, edit, has_directions
from zeuxis.latent.projection import Projection, project, searching

__all__ = [
    "Directions",
    "Projection",
    "attribute_direction",
    "directions",
    "edit",
    "has_directions",
    "project",
    "searching",
]
