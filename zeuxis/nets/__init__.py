"""Networks: modules built from layer specs, with shapes inferred from the input."""

from zeuxis.nets.context import Conditioning, Context
from zeuxis.nets.layers import LAYERS, Shape, layer
from zeuxis.nets.network import Network, Output, Row
from zeuxis.nets.summary import summary

__all__ = ["LAYERS", "Conditioning", "Context", "Network", "Output", "Row", "Shape", "layer", "summary"]
