"""Everything that is to be measured on an NVIDIA GPU, by one command: `python -m benchmarks.gpu.measure`."""
