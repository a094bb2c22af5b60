"""The project's own embedder from random weights, taught by a network whose licence allows it."""
