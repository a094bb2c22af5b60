"""The project's own face detector: network, labels, losses and training."""
