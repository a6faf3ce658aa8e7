from typing import Any

from edgeprune.device.ops import Op
from edgeprune.measured import op_table


def op(name: str, kind: Any, node: str) -> Op:
    return Op(name, kind, ("x",), name, 8, 8, 4, 4, nodes=(node,))


def test_profiler_rows_are_matched_by_name_and_else_in_order() -> None:
    ops = (op("relu", "conv", "node_Conv_3"), op("pool", "pool", "node_pool"), op("out", "dense", "node_fc"))
    by_name = (
        ("node_Conv_3_token_1", "QLinearConv", 1e-3),
        ("Transpose", "Transpose", 2e-3),
        ("relu_nchwc", "Conv", 1.0),
    )
    rows = op_table(by_name, ops)
    assert [(row.name, row.kind, row.macs) for row in rows] == [
        ("relu", "conv", ops[0].macs),
        ("Transpose", "Transpose", 0),
        ("relu", "conv", ops[0].macs),
    ]
    in_order = (("0", "Convolution (NHWC)", 1.0), ("1", "Max Pooling", 1.0), ("2", "Fully Connected", 1.0))
    assert [row.name for row in op_table(in_order, ops)] == ["relu", "1", "out"]
    assert [row.macs for row in op_table(in_order[:2], ops)] == [0, 0], "another number of layers is no match"
