"""Linux boards that are not there: their runtimes' own aarch64 builds, run by QEMU's user mode on this machine.

What is exact: that a file loads and runs, its answers, the instructions of an inference. What depends on a model:
misses of simulated caches. What this cannot tell is time: what a run takes here says nothing of the board, so it is
never shown; latency is an estimate from the counts (`latency`), with the interval that published results left.

`kit.set_up` brings a root file system and the runtimes' packages into a folder; `execution.execute` runs a file there.
"""
