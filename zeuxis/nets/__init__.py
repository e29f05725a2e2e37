"""What networks are made of: layer specs become modules, with shapes inferred from the input."""

from zeuxis.nets.layers import Shape
from zeuxis.nets.network import Network, Row
from zeuxis.nets.summary import summary

__all__ = ["Network", "Row", "Shape", "summary"]
