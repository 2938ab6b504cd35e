"""A mask in other words: the runs of its pixels, the polygons around its pieces."""

from samg_fast.shapes.polygons import Piece, Ring, joined, polygons
from samg_fast.shapes.rle import Rle, encode

__all__ = ["Piece", "Ring", "Rle", "encode", "joined", "polygons"]
