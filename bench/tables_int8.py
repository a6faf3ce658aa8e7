"""The table of `make bench-int8`."""

from __future__ import annotations

from typing import Any

from bench.markdown import Document, cells_of, item, percent, table

TITLE = "What int8 costs in accuracy"
ABOUT = (
    "The same float model as int8 files with the same ranges, judged together: steps are tried until no file's drop on "
    "validation is above half a point. Plain is int8 without any of them. Test images decide nothing. ResNet-20 has "
    "published CIFAR-10 weights, which have seen the 2,000 validation images too, so only its test figures (all 10,000 "
    "images) say what is lost; the others learn 16,000 images of Fashion-MNIST for a few epochs, with 4,000 for "
    "validation and all 10,000 test images. A GRU is written as TFLite only: the other runtimes have no int8 kernel "
    "for it. Drops are percentage points, below zero a gain."
)
_FORMATS = ("onnx", "tflite", "openvino")


def lines_of(document: Document) -> list[str]:
    """The table and what was done to each net."""
    rows, notes = [], []
    for name, found in cells_of(document).items():
        for stage, drops in (("plain", found["plain"]), ("held" if found["holds"] else "best", found["validation"])):
            rows.append([name, stage, percent(found["fp32"]["validation"]), *_points(drops), ""])
        rows.append([name, "test", percent(found["fp32"]["test"]), *_points(found["test"]), _done(found)])
        left = {fmt: ops for fmt, ops in found["float_ops"].items() if ops}
        if left:
            parts = [
                f"{fmt} {len(ops)} ({', '.join(sorted({op.split()[0] for op in ops}))})" for fmt, ops in left.items()
            ]
            notes.append(item(f"{name}: operators in float or that move data: {'; '.join(parts)}."))
    header = ["net", "files", "float %", "ONNX pp", "TFLite pp", "OpenVINO pp", "steps kept"]
    return [table(header, rows), *(["\n".join(notes)] if notes else [])]


def _points(drops: dict[str, float]) -> list[str]:
    return [f"{drops[name] * 100:+.2f}" if name in drops else "" for name in _FORMATS]


def _done(found: dict[str, Any]) -> str:
    kept = [step for step in found["steps"] if step["kept"]][1:]
    named = [step["step"] + (f" ({', '.join(step['in_float'])})" if step["in_float"] else "") for step in kept]
    tried = len(found["steps"]) - 1
    return f"{', '.join(named) or 'none'}" + (f"; {tried} tried" if tried else "")
