"""Arrays in nested lists, tuples and dicts: the leaves, what leads to each, and containers like others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Keys = tuple[Any, ...]


def leaves(tree: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """What `tree` holds, each with the keys and indices that lead to it."""
    if isinstance(tree, dict):
        for key, branch in dict.items(tree):
            yield from leaves(branch, (*keys, key))
    elif isinstance(tree, (list, tuple)):
        for index, branch in enumerate(items_of(tree)):
            yield from leaves(branch, (*keys, index))
    else:
        yield keys, tree


def items_of(sequence: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    """As the compiled part reads it: whatever a subclass makes of iteration."""
    return list.__iter__(sequence) if isinstance(sequence, list) else tuple.__iter__(sequence)


def at(tree: Any, keys: Keys) -> Any:
    """The item of `tree` at `keys`; in a prefix, a number stands for everything below it."""
    for key in keys:
        if not isinstance(tree, (Mapping, list, tuple)):
            return tree
        tree = tree[key]
    return tree


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same containers with `function` applied to each leaf."""
    if isinstance(tree, dict):
        return {key: mapped(function, branch) for key, branch in dict.items(tree)}
    if isinstance(tree, (list, tuple)):
        branches = [mapped(function, branch) for branch in items_of(tree)]
        return branches if isinstance(tree, list) else tuple(branches)
    return function(tree)


def path_of(keys: Keys) -> str:
    """As messages and checkpoints write it: ``['encoder'][2]``."""
    return "".join(f"[{key!r}]" for key in keys)
