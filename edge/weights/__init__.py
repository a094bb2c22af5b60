"""Weights by name: those that ship, those fetched into the cache, and where a user gets others."""

from edge.weights.resolve import find_weights
from edge.weights.shipped import FOLDER, Weights, find_beside, list_weights, read_header

__all__ = ["FOLDER", "Weights", "find_beside", "find_weights", "list_weights", "read_header"]
