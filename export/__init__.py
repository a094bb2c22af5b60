"""From a checkpoint, or a third-party ONNX, to a bundle of measured engines."""
