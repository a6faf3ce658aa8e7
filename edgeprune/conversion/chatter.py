"""Keeps what converters print away from the user's terminal, and in the error when they fail.

Converters write progress to stdout and stderr from Python and from C++, so the file descriptors themselves are
redirected. That is process-wide: a conversion runs in one thread at a time.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import TextIO

from edgeprune.errors import EdgepruneError, UnsupportedError

_LINES = 6


@contextmanager
def quiet(doing: str, *, refuse: type[EdgepruneError] = UnsupportedError) -> Iterator[None]:
    """Run a third-party converter silently; its failure becomes `refuse` with its last lines.

    Args:
        doing: What is being done, for the message: "converting to ONNX".

    Raises:
        UnsupportedError: The tool failed (or `refuse`, where that is given).
    """
    with tempfile.TemporaryFile() as sink:
        try:
            with _redirected(sink.fileno()), redirect_stdout(_stream(1)), redirect_stderr(_stream(2)):
                yield
        except EdgepruneError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            sink.seek(0)
            printed = sink.read().decode(errors="replace")
            raise refuse(_message(doing, error), hint=_last_lines(printed, error)) from error


@cache
def _stream(descriptor: int) -> TextIO:
    """A stream on the descriptor itself, wherever sys.stdout goes at the moment (a notebook, a test runner).

    It is never closed: a logger that was made while a converter ran may hold on to it.
    """
    return open(descriptor, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)


@contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    saved = [(number, os.dup(number)) for number in (1, 2)]
    _flush()
    try:
        for number, _ in saved:
            os.dup2(descriptor, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        # Converters install root handlers as a side effect of logging one line.
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _message(doing: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    return f"{doing} failed: {type(error).__name__}: {first}"[:500]


def _last_lines(printed: str, error: Exception) -> str:
    lines = [line.rstrip() for line in [*printed.splitlines(), *str(error).splitlines()] if line.strip()]
    return "the tool's last lines:\n" + "\n".join(line[:300] for line in lines[-_LINES:])
