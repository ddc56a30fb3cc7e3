"""Arrays in nested lists, tuples, dicts and dataclasses: the leaves, what leads to each, and containers like others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Keys = tuple[Any, ...]


def leaves(tree: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """What `tree` holds, each with the keys and indices that lead to it; fields of a dataclass count as keys."""
    if (items := as_dict(tree)) is not None:
        for key, branch in dict.items(items):
            yield from leaves(branch, (*keys, key))
    elif isinstance(tree, (list, tuple)):
        for index, branch in enumerate(items_of(tree)):
            yield from leaves(branch, (*keys, index))
    else:
        yield keys, tree


def items_of(sequence: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    """As the compiled part reads it: whatever a subclass makes of iteration."""
    return list.__iter__(sequence) if isinstance(sequence, list) else tuple.__iter__(sequence)


def as_dict(tree: Any) -> dict[Any, Any] | None:
    """A dict, its read-only view, or the fields of a dataclass; None for anything else."""
    if isinstance(tree, dict):
        return tree
    if isinstance(tree, MappingProxyType):
        return dict(tree)
    return fields_of(tree) if hasattr(type(tree), "__dataclass_fields__") else None


def fields_of(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


@functools.lru_cache
def frozen(kind: type) -> type:
    """A dataclass like `kind`, and derived from it, to whose fields nothing can be assigned."""

    def refuse(_self: Any, name: str, *_: Any) -> NoReturn:
        msg = f"{name} of what a State keeps must stay as it is, not be set; load_state_dict() changes it"
        raise AttributeError(msg)

    body = {"__slots__": (), "__setattr__": refuse, "__delattr__": refuse, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), body)


def at(tree: Any, keys: Keys) -> Any:
    """The item of `tree` at `keys`; in a prefix, a number stands for everything below it."""
    for key in keys:
        items = as_dict(tree)
        if items is None and not isinstance(tree, (Mapping, list, tuple)):
            return tree
        tree = (tree if items is None else items)[key]
    return tree


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same containers with `function` applied to each leaf."""
    if (items := as_dict(tree)) is not None:
        found = {key: mapped(function, branch) for key, branch in dict.items(items)}
        return found if isinstance(tree, (dict, MappingProxyType)) else made(type(tree), found)
    if isinstance(tree, (list, tuple)):
        branches = [mapped(function, branch) for branch in items_of(tree)]
        return branches if isinstance(tree, list) else tuple(branches)
    return function(tree)


def made(kind: type, fields: dict[str, Any]) -> Any:
    """A dataclass with these fields; no method of it runs, as the compiled part makes it."""
    instance: Any = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
    return instance


def path_of(keys: Keys) -> str:
    """As messages and checkpoints write it: ``['encoder'][2]``."""
    return "".join(f"[{key!r}]" for key in keys)
