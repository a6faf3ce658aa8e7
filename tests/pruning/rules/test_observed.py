"""Rules for what only observed programs hold."""

from __future__ import annotations

import pytest

from edgeprune.graph import Arg, Graph, Node, Ref
from edgeprune.pruning.labels import Labelling, label


def labelled(op: str, shapes: list[tuple[int, ...]], out: tuple[int, ...], args: tuple[Arg, ...]) -> Labelling:
    """One operator over parameters p0, p1, ... of the given shapes."""
    sources = [Node(f"p{i}", "parameter", shapes=(shape,), target=f"p{i}") for i, shape in enumerate(shapes)]
    return label(Graph((*sources, Node("y", op, args, {}, (out,)))))


def frozen(run: Labelling) -> set[tuple[str, int]]:
    """(parameter, axis) that cannot shrink."""
    component = run.components()
    stuck = {int(c) for labels, _ in run.freezes for c in component[labels]}
    found = set()
    for name, outputs in run.axes.items():
        for axis, labels in enumerate(outputs[0] if name.startswith("p") else ()):
            if labels is not None and stuck & set(component[labels].tolist()):
                found.add((name, axis))
    return found


def test_regions_keep_the_channels_of_the_map_and_freeze_the_boxes() -> None:
    args = (Ref("p0"), Ref("p1"), 0.25, 7, 7, 2, False)
    run = labelled("torchvision.roi_align.default", [(1, 6, 9, 9), (4, 5)], (4, 6, 7, 7), args)
    assert frozen(run) == {("p0", 2), ("p0", 3), ("p1", 0), ("p1", 1)}
    channels = run.axes["y"][0][1]
    assert channels is not None and channels.tolist() == run.axes["p0"][0][1].tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("values", [(4, 6, 7), (6, 7), (4, 6, 1)])
def test_rows_that_are_written_have_the_channels_of_what_they_are_written_into(values: tuple[int, ...]) -> None:
    run = labelled(
        "aten.index_put_.default", [(9, 6, 7), (4,), values], (9, 6, 7), (Ref("p0"), (Ref("p1"),), Ref("p2"))
    )
    component, channels = run.components(), len(values) - 2
    ours, theirs = run.axes["p0"][0][1], run.axes["p2"][0][channels]
    assert ours is not None and theirs is not None
    assert component[ours].tolist() == component[theirs].tolist()
    assert {("p0", 0), ("p1", 0)} <= frozen(run)
    assert not frozen(run) & {("p0", 1), ("p2", channels)}


@pytest.mark.parametrize("indices", [(Ref("p1"), Ref("p1")), (None, Ref("p1")), (Ref("p3"),)])
def test_other_writes_freeze_everything(indices: tuple[Arg, ...]) -> None:
    shapes: list[tuple[int, ...]] = [(9, 6), (4,), (4,), (9, 6)]
    run = labelled("aten.index_put_.default", shapes, (9, 6), (Ref("p0"), indices, Ref("p2")))
    assert {("p0", 0), ("p0", 1), ("p2", 0)} <= frozen(run)


@pytest.mark.parametrize(
    ("op", "args", "reason"),
    [
        ("builtin.read_by_python", (Ref("p0"), "tolist"), "read by Python (tolist)"),
        ("kept_whole", ((Ref("p0"),), "another path may need it"), "another path may need it"),
    ],
)
def test_what_python_may_use_stays(op: str, args: tuple[Arg, ...], reason: str) -> None:
    source = Node("p0", "parameter", shapes=((3, 4),), target="p0")
    run = label(Graph((source, Node("y", op, args))))
    assert frozen(run) == {("p0", 0), ("p0", 1)}
    assert all(reason in why for _, why in run.freezes)


@pytest.mark.parametrize(("old", "new"), [((3, 0), (0, 7)), ((0,), (0, 5)), ((0, 5), (2, 0, 5))])
def test_an_empty_tensor_whose_axes_cannot_be_told_apart_stays(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    run = labelled("aten.view.default", [old], new, (Ref("p0"), new))
    assert run.axes["y"] == ((None,) * len(new),)
    assert frozen(run) == {("p0", axis) for axis, size in enumerate(old) if size}


def test_an_empty_tensor_keeps_the_channels_beside_its_empty_axis() -> None:
    run = labelled("aten.view.default", [(0, 6, 2)], (0, 12), (Ref("p0"), (0, 12)))
    assert run.axes["y"][0][1] is not None and len(run.axes["y"][0][1]) == 12


def test_a_constant_has_no_channels() -> None:
    assert label(Graph((Node("c", "constant", shapes=((3, 4),)),))).axes["c"] == ((None, None),)
