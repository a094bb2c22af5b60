"""Micro and stage benchmarks, run by `make bench`."""
