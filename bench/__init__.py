"""Benchmarks: each is one command, `python -m bench.<name>`, and leaves its figures in `bench/results/<name>.json`."""
