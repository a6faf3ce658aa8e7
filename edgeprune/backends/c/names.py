"""Names and values as C spells them."""

from __future__ import annotations

import re

import numpy as np

from edgeprune.backends import Array

C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "bool": "uint8_t",
    "float32": "float",
}
_KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while "
    # of C++, whose programs include the header
    "alignas alignof and asm bool catch class concept constexpr decltype delete explicit export false friend mutable "
    "namespace new noexcept not nullptr operator or private protected public requires static_assert template this "
    "throw true try typename using virtual xor".split()
)
_LINE = 108


def identifier(name: str) -> str:
    """The name as a C identifier: other characters become underscores; `model` where nothing is left."""
    found = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    if not found:
        return "model"
    if found[0].isdigit() or found in _KEYWORDS:
        return f"model_{found}"
    return found


def remark(text: str) -> str:
    """Foreign text that is safe within a comment or a string: letters, digits and what paths have; 120 at most."""
    return re.sub(r"[^A-Za-z0-9_./:;, +-]", "_", text)[:120].strip()


def real(value: float) -> str:
    """A float literal that reads back as the same single precision number."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if re.search(r"[.en]", text) else f"{text}.0f"


def array(name: str, values: Array, qualifiers: str = "", attributes: str = "") -> str:
    """A definition of a one-dimensional array of these values."""
    kind = C_TYPES[str(values.dtype)]
    head = " ".join(part for part in (qualifiers, "const", kind, f"{name}[{values.size}]", attributes) if part)
    return f"{head} = {{\n{rows(values)}\n}};\n"


def rows(values: Array) -> str:
    """The values of an array as lines of literals."""
    texts = [_literal(value, str(values.dtype)) for value in values.ravel().tolist()]
    lines, line = list[str](), ""
    for text in texts:
        if len(line) + len(text) + 2 > _LINE:
            lines.append(line)
            line = ""
        line += f"{' ' if line else '    '}{text},"
    return "\n".join([*lines, line])


def _literal(value: float | bool, kind: str) -> str:
    if kind == "float32":
        return real(value)
    if kind == "int64" and value == -(2**63):
        return "(-9223372036854775807 - 1)"  # the positive number, which a minus sign applies to, does not exist
    return str(int(value))
