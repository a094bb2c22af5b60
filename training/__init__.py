"""Training: MobileFaceNet, the ArcFace head, data and splits, fine-tuning and distillation."""
