"""Containers as what JSON can hold, and back; and what the user adds, which it must hold as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .._containers import as_dict, items_of

if TYPE_CHECKING:
    from .._containers import Keys

_MOST_DEPTH = 100


def encoded(tree: Any, path: str) -> Any:
    """Containers with numbers, strings and None in them: a dict with one item says which it is; dataclasses become dicts."""
    if (items := as_dict(tree)) is not None:
        return {
            "dict": [
                [_encoded_key(key, path), encoded(item, f"{path}[{key!r}]")]
                for key, item in dict.items(items)
            ]
        }
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [encoded(item, f"{path}[{index}]") for index, item in enumerate(items_of(tree))]}
    return tree


def plain_keys(keys: Keys, path: str) -> Keys:
    """As they come back."""
    return tuple(_decoded_key(_encoded_key(key, path)) for key in keys)


def checked_text(text: str, path: str) -> str:
    """JSON makes one character of two that are halves of one."""
    if json.loads(json.dumps(text)) != text:
        msg = f"{path} must have no halves of characters (surrogates) beside one another, not {text!r}; rename it"
        raise ValueError(msg)
    return text


def _encoded_key(key: Any, path: str) -> Any:
    if key is None or isinstance(key, (bool, np.bool_)):
        return None if key is None else bool(key)
    if isinstance(key, str):
        return checked_text(str.__str__(key), path)
    if isinstance(key, (int, np.integer)):
        return int(key)
    if isinstance(key, (float, np.floating)):
        return float(key)
    if isinstance(key, bytes):
        return {"bytes": key.hex()}
    if isinstance(key, tuple):
        return {"tuple": [_encoded_key(item, path) for item in key]}
    msg = (
        f"{path} must have keys that a file can hold, which are strings, numbers, bytes, None and tuples of them, "
        f"not {key!r}; rename it"
    )
    raise TypeError(msg)


def decoded(tree: Any) -> Any:
    if isinstance(tree, list):
        msg = "a list must say what it stands for"
        raise TypeError(msg)
    if not isinstance(tree, dict):
        return tree
    ((kind, items),) = tree.items()
    if kind == "dict":
        return {_decoded_key(key): decoded(item) for key, item in items}
    return {"list": list, "tuple": tuple}[kind](map(decoded, items))


def _decoded_key(key: Any) -> Any:
    if not isinstance(key, dict):
        return key
    ((kind, value),) = key.items()
    return bytes.fromhex(value) if kind == "bytes" else {"tuple": tuple}[kind](map(_decoded_key, value))


_WAYS = {
    tuple: "list() of it",
    set: "sorted() of it",
    bytes: "its hex()",
    np.ndarray: "its tolist()",
    np.generic: "its item()",
    np.random.Generator: "its bit_generator.state",
    np.random.BitGenerator: "its state",
}


def check_extra(extra: Any, path: str = "extra", depth: int = 0) -> None:
    """What JSON would make something else of is refused, and said how it can be held."""
    if depth > _MOST_DEPTH:
        msg = f"{path[:50]}... must be at most {_MOST_DEPTH} levels deep, not deeper"
        raise ValueError(msg)
    if isinstance(extra, dict):
        for key, item in extra.items():
            if not isinstance(key, str):
                msg = f"{path} must have strings as keys, as it is kept as JSON, not {key!r}; use str(key)"
                raise TypeError(msg)
            checked_text(str.__str__(key), path)
            check_extra(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(extra, list):
        for index, item in enumerate(extra):
            check_extra(item, f"{path}[{index}]", depth + 1)
    elif not isinstance(extra, (str, int, float, bool, type(None))):
        way = next(
            (way for kind, way in _WAYS.items() if isinstance(extra, kind)),
            "numbers and strings that make it anew",
        )
        msg = f"{path} must be what JSON can hold, not {type(extra).__name__}; save {way}"
        raise TypeError(msg)
    elif isinstance(extra, str):
        checked_text(str.__str__(extra), path)
    elif isinstance(extra, int):
        _check_digits(extra, path)


def _check_digits(number: int, path: str) -> None:
    try:
        json.loads(json.dumps(int(number)))
    except ValueError:
        msg = f"{path} must have as many digits as Python reads, not more; save hex() of it"
        raise ValueError(msg) from None
