"""Objects of the user's own code, named `file.py:name` or `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import EdgepruneError, UsageError, did_you_mean

Scalar = bool | int | float | str


def is_entry(text: str) -> bool:
    """Whether the text names an object in a Python file or module rather than a source such as `npz:FILE`."""
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or _is_module(place))


def load_entry(text: str, what: str) -> Any:
    """The object that `file.py:name` or `package.module:name` names. This runs the user's code.

    Args:
        what: What the object is for, such as `--model`; for messages.

    Raises:
        UsageError: No such file, module or name, or the code fails while it is loaded.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        raise UsageError(f"cannot read {text!r}", where=what, hint="write file.py:name or package.module:name")
    module = _load_file(Path(place), what) if place.endswith(".py") else _load_module(place, what)
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UsageError(f"{place} has no {name!r}", where=what, hint=did_you_mean(name, public))
    return getattr(module, name)


def call_entry(entry: Any, arguments: Mapping[str, Scalar], what: str) -> Any:
    """What the entry returns for these arguments, each brought to the type that its signature asks for.

    Raises:
        UsageError: An unknown or missing argument, a value of the wrong type, or the call fails.
    """
    typed = typed_arguments(entry, arguments, what)
    try:
        return entry(**typed)
    except EdgepruneError:
        raise
    except Exception as err:  # whatever the user's code raises
        raise _failed(err, f"{getattr(entry, '__name__', 'the entry')}() failed", what) from err


def typed_arguments(entry: Any, arguments: Mapping[str, Scalar], what: str) -> dict[str, Scalar]:
    """`arguments` with text turned into the annotated or default value's type.

    Raises:
        UsageError: An argument that the signature does not have, or text that is not of its type.
    """
    try:
        parameters = signature(entry, eval_str=True).parameters
    except (TypeError, ValueError, NameError):
        return dict(arguments)
    open_ended = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    typed: dict[str, Scalar] = {}
    for name, value in arguments.items():
        parameter = parameters.get(name)
        if parameter is None and not open_ended:
            raise UsageError(f"no argument {name!r}", where=what, hint=did_you_mean(name, parameters))
        typed[name] = _typed(value, parameter, f"argument {name}", what)
    needed = {
        n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    if missing := sorted(needed - set(arguments)):
        raise UsageError(
            f"argument {missing[0]!r} has no default", where=what, hint=f"add --model-arg {missing[0]}=VALUE"
        )
    return typed


def _typed(value: Scalar, parameter: Parameter | None, name: str, what: str) -> Scalar:
    if parameter is None or not isinstance(value, str):
        return value
    wanted = parameter.annotation if parameter.annotation is not parameter.empty else type(parameter.default)
    if wanted is bool:
        if value.lower() in ("true", "yes", "1", "false", "no", "0"):
            return value.lower() in ("true", "yes", "1")
        raise UsageError(f"{name}: {value!r} is neither true nor false", where=what)
    if wanted in (int, float):
        try:
            return wanted(value)  # type: ignore[no-any-return]
        except ValueError:
            raise UsageError(f"{name}: {value!r} is not a number ({wanted.__name__})", where=what) from None
    return value


def _load_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"no such file: {path}", where=what, hint="write file.py:name with a path from here")
    path = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"  # two nets.py do not collide
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            found.loader.exec_module(module)
    except Exception as err:  # whatever the user's code raises
        del sys.modules[name]
        raise _failed(err, f"{path.name} cannot be loaded", what) from err
    return module


def _load_module(name: str, what: str) -> ModuleType:
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name is not None and (name == err.name or name.startswith(err.name + ".")):
            raise UsageError(f"no module {name!r}", where=what, hint="write file.py:name for a file") from None
        raise _failed(err, f"{name} cannot be loaded", what) from err
    except Exception as err:  # whatever the user's code raises
        raise _failed(err, f"{name} cannot be loaded", what) from err


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules beside the user's file can be imported while it is loaded."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _failed(err: Exception, message: str, what: str) -> UsageError:
    last = traceback.extract_tb(err.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return UsageError(
        f"{message}: {type(err).__name__}: {err} ({place})", where=what, hint="--debug shows the traceback"
    )


def _is_module(place: str) -> bool:
    return "." in place and all(piece.isidentifier() for piece in place.split("."))
