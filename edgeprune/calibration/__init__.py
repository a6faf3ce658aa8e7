"""Calibration: small networks timed in the real runtime of a machine, and the latency model that follows from them."""
