"""What a central gallery in Milvus costs; `python -m benchmarks.central` says how it is measured."""
