"""Quantisation-aware fine-tuning: weights moved to where rounding to eight bits costs least."""
