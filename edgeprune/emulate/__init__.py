"""A C library compiled for a Cortex-M, executed in an emulator and counted, without a board.

What is exact: the outputs, the executed instructions, the bytes in flash and RAM, the depth of the stack. What is not
is time: no emulator here models a pipeline, flash wait states or caches, so that cycles are an interval with the
provenance of its figures (`cycles`), never a measured number.

`profile.profile_library` does all of it. Needs the extra `mcu`; a compiler of the system, `arm-none-eabi-gcc`, is
preferred over the one the extra brings.
"""
