"""The bookkeeping of masks: which elements of every tensor are alive while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

Mask = torch.Tensor  # bool, of the shape of what it belongs to


class UnjudgedError(Exception):
    """The oracle has no rule for what a model does with removed channels; the message names the operator."""


class Alive(TorchDispatchMode):
    """While active, every operator also says which elements of its results are alive.

    Args:
        rules: Per operator name without overload, such as `add_`.
        masks: Those of the parameters and buffers; what is not named is alive.
    """

    def __init__(self, rules: Mapping[str, Rule], masks: Iterable[tuple[torch.Tensor, Mask]]) -> None:
        super().__init__()
        self._rules = rules
        self._masks = WeakTensorKeyDictionary()
        for tensor, mask in masks:
            self._masks[tensor] = mask

    def mask(self, tensor: torch.Tensor) -> Mask:
        """The mask of a tensor, strided as the tensor is."""
        found = self._masks.get(tensor)
        if found is None:
            found = self._masks[tensor] = torch.empty_like(tensor, dtype=torch.bool).fill_(True)
        assert isinstance(found, torch.Tensor)
        return found

    def is_alive(self, tensor: torch.Tensor) -> bool:
        """Whether all elements are alive."""
        found = self._masks.get(tensor)
        return found is None or bool(found.all())

    def put(self, tensor: torch.Tensor, mask: Mask) -> None:
        """Give a result its mask, which is broadcast; whatever the tensor is a view of follows."""
        known = self._masks.get(tensor)
        if known is None:
            known = self._masks[tensor] = torch.empty_like(tensor, dtype=torch.bool)
        known.copy_(mask)

    def share(self, view: torch.Tensor, mask: Mask) -> None:
        """Give a view the same view of the mask."""
        self._masks[view] = mask

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        call = Call(self, func, args, dict(kwargs or {}))
        if torch.Tag.inplace_view in func.tags:  # of the tensor itself, such as `transpose_`
            call.run(call.mask(args[0]))
            return call.run()
        if call.is_view:
            return _view(call)
        if all(map(self.is_alive, call.tensors)):
            return call.run()
        rule = self._rules.get(call.name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = elementwise
        if rule is None:
            raise UnjudgedError(f"no rule for {func} on removed channels")
        return rule(call)


@dataclass(frozen=True)
class Call:
    """One operator being run."""

    alive: Alive
    func: OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.func._schema.name).rpartition("::")[2]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        return [leaf for leaf in tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, torch.Tensor)]

    @property
    def is_view(self) -> bool:
        """Whether the results share memory with the first argument."""
        infos = [returned.alias_info for returned in self.func._schema.returns]
        return any(info is not None and not info.is_write for info in infos)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The operator on other leading arguments, the remaining ones as they are."""
        return self.func(*args, *self.args[len(args) :], **{**self.kwargs, **kwargs})

    def argument(self, name: str) -> Any:
        """The argument of that name in the operator's schema, defaults filled in."""
        for position, declared in enumerate(self.func._schema.arguments):
            if declared.name == name:
                if position < len(self.args):
                    return self.args[position]
                return self.kwargs.get(name, declared.default_value)
        raise UnjudgedError(f"{self.func} has no argument {name!r}")

    def mask(self, tensor: Any) -> Mask:
        """The mask of an argument; that of a number or of no tensor is one alive element."""
        return self.alive.mask(tensor) if isinstance(tensor, torch.Tensor) else torch.ones((), dtype=torch.bool)

    def zeroed(self, tensor: Any, value: float = 0.0) -> Any:
        """An argument with its dead elements replaced."""
        if not isinstance(tensor, torch.Tensor) or self.alive.is_alive(tensor):
            return tensor
        return torch.where(self.mask(tensor), tensor, torch.full((), value, dtype=tensor.dtype))

    def answer(self, result: Any, *masks: Mask) -> Any:
        """The result, its tensors given their masks in order; a single mask is for all of them."""
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for tensor, mask in zip(tensors, masks if len(masks) > 1 else masks * len(tensors), strict=True):
            self.alive.put(tensor, mask)
        return result

    def must_be_alive(self, tensors: Sequence[Any], why: str) -> None:
        """Refuse to judge where one of the tensors holds dead elements."""
        if not all(self.alive.is_alive(tensor) for tensor in tensors if isinstance(tensor, torch.Tensor)):
            raise UnjudgedError(f"{self.func}: {why}")


Rule = Callable[[Call], Any]


def elementwise(call: Call) -> Any:
    """Dead where any operand is dead."""
    mask = call.mask(call.tensors[0])
    for tensor in call.tensors[1:]:
        mask = mask & call.mask(tensor)
    return call.answer(call.run(), mask)


def _view(call: Call) -> Any:
    """The same view of the mask."""
    base, *rest = call.args
    result = call.func(base, *rest, **call.kwargs)
    views = call.func(call.mask(base), *rest, **call.kwargs)
    tree_map(call.alive.share, result, views)
    return result
