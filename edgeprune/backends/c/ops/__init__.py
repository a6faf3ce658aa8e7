"""Operators in C: one module per family, found by what its `KINDS` lists."""
