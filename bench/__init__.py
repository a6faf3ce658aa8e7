"""Benchmarks: each is one command, `python -m bench.<name>`, and leaves its figures in `bench/results/<name>.json`.

`bench.fuzz_tflite` searches rather than measures: it prints what it found.
"""
