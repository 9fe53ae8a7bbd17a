"""All that only a GPU can show, on one card: ``python -m benchmarks.gpu`` (docs/gpu.md)."""
