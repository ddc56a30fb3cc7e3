"""Whatever load_state_dict(), load() and unpickling are handed, they refuse it with a documented exception and change
nothing, or make of it what can be saved, loaded and copied again.

An input is a letter, which says what reads the rest; a byte, which says what run it is about; and the rest: the bytes of
a file, or JSON for the header of a file whose checksums are right, for a state_dict, or for what a pickle hands over.
fuzz_coverage.py looks for inputs that reach new code (`nox -s fuzz`); tests/data/corpus keeps some.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum import _core
from fast_momentum._containers import leaves, mapped
from fast_momentum._files import _npz, _safetensors
from helpers import assert_bits, make, snapshot

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

REFUSALS = (TypeError, ValueError)
DTYPES = ["<f4", "<f8", "<f2", ">f4", "|i1", "<u2", "<i8", "<c8", "|b1", "|S4"]


def encoded(tree: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(tree, dict):
        return {"dict": [[encoded(key), encoded(item)] for key, item in tree.items()]}
    if isinstance(tree, tuple):
        return {"tuple": [encoded(item) for item in tree]}
    if isinstance(tree, np.ndarray):
        return {"array": [DTYPES.index(tree.dtype.str), list(tree.shape), tree.tobytes().hex()]}
    return [encoded(item) for item in tree] if isinstance(tree, list) else tree


def decoded(tree: Any) -> Any:
    """What no encoded() has made is left as it is, and a dict that is not understood becomes one with strings."""
    if isinstance(tree, list):
        return [decoded(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    with contextlib.suppress(*REFUSALS, LookupError, OverflowError):
        [[kind, value]] = tree.items()
        if kind == "tuple":
            return tuple(decoded(item) for item in value)
        if kind == "dict":
            return {decoded(key): decoded(item) for key, item in value}
        if kind == "array":
            dtype, shape, data = value
            return np.frombuffer(bytes.fromhex(data), DTYPES[dtype]).reshape(shape)
    return {key: decoded(item) for key, item in tree.items()}


# ---- runs that are saved ----


def kinds() -> Iterator[dict[str, Any]]:
    for row in _core.rules:
        kind = {"rule": row["rule"]} | ({"form": row["form"]} if row["form"] else {})
        yield kind
        yield kind | {"velocity_dtype": "bfloat16", "average_decay": 0.5}
        yield kind | {"compensated": True} | ({"amsgrad": True} if "amsgrad" in row["takes"] else {})
    yield {"velocity_dtype": "int8", "lr": {"w": [0.1], "b": 0.2}}


def run_of(kind: dict[str, Any]) -> tuple[Any, fm.State]:
    params = {"w": [np.ones((2, 3), np.float32)], "b": np.ones(2, np.float32)}
    state = make(fm, params, **{"lr": 0.1, **kind})
    fm.step(params, {"w": [np.ones((2, 3), np.float32)], "b": None}, state)
    return params, state


KINDS = list(kinds())


@contextlib.contextmanager
def file_named(suffix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / f"run{suffix}"


def file_of(params: Any, state: fm.State, suffix: str) -> bytes:
    with file_named(suffix) as path:
        fm.save(path, params, state, {"epoch": 3})
        return path.read_bytes()


def header_of(data: bytes, suffix: str) -> bytes:
    with file_named(suffix) as path:
        path.write_bytes(data)
        with path.open("rb", buffering=0) as file:
            reader = _npz.Reader(file) if suffix == ".npz" else _safetensors.Reader(file)
            return reader.header()


def with_header(data: bytes, header: bytes, suffix: str) -> bytes:
    """The file with another header, and the checksum of that."""
    if suffix == ".npz":
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
            for member in old.infolist():
                new.writestr(member.filename, header if member.filename == _npz.HEADER else old.read(member))
        return made.getvalue()
    n = int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8 : 8 + n])
    metadata = tensors["__metadata__"]
    checksums = json.loads(metadata[_safetensors.CHECKSUMS]) | {"": zlib.crc32(header)}
    metadata[_safetensors.HEADER] = header.decode()
    metadata[_safetensors.CHECKSUMS] = json.dumps(checksums)
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + n :]


# ---- what reads an input, and returns whether it was any good ----


def load(data: bytes, kind: dict[str, Any], suffix: str) -> bool:
    """As load() and as restore(), which give the same where they go by the same names."""
    params, state = run_of(kind)
    with file_named(suffix) as path:
        path.write_bytes(data)
        is_restored = is_done(lambda: fm.restore(path, params, state), state, params)
        try:
            loaded, loaded_state, _ = fm.load(path)
        except REFUSALS:
            return False
        if is_restored and [keys for keys, _ in leaves(params)] == [keys for keys, _ in leaves(loaded)]:
            assert_bits(params, loaded)
            assert snapshot(state) == snapshot(loaded_state)
        check_whole(loaded_state)
        check_steps(loaded, loaded_state)
        fm.save(path, loaded, loaded_state)
        return True


def load_header(data: bytes, kind: dict[str, Any], suffix: str) -> bool:
    try:
        whole = with_header(file_of(*run_of(kind), suffix), data, suffix)
    except UnicodeDecodeError:  # in a file of safetensors, the header is text
        return False
    return load(whole, kind, suffix)


def load_state_dict(data: bytes, kind: dict[str, Any]) -> bool:
    params, state = run_of(kind)
    tree = tree_of(data)
    found = [is_done(lambda k=k: state.load_state_dict(tree, strict=k), state, params) for k in (True, False)]
    if any(found):
        check_whole(state)
        check_steps(params, state)
    return any(found)


def unpickle(data: bytes, kind: dict[str, Any]) -> bool:
    params, state = run_of(kind)
    function, _ = state.__reduce__()
    try:
        state = function(*arguments_of(tree_of(data)))
    except REFUSALS:
        return False
    check_whole(state)
    is_done(lambda: fm.step(params, mapped(np.zeros_like, params), state), state, params)
    return True


def is_done(call: Callable[[], Any], state: fm.State, *trees: Any) -> bool:
    """If it is refused, nothing has changed."""
    before = snapshot(state, *trees)
    try:
        call()
    except REFUSALS:
        assert snapshot(state, *trees) == before
        return False
    return True


def check_whole(state: fm.State) -> None:
    """It can be saved, and comes back the same."""
    before = snapshot(state)
    state.load_state_dict(state.state_dict())
    assert snapshot(state) == before
    assert snapshot(pickle.loads(pickle.dumps(state))) == before


def check_steps(params: Any, state: fm.State) -> None:
    """A step is made, unless the average is in the place of the parameters."""
    if state.state_dict()["swapped"]:
        state.swap_average(params)
    fm.step(params, mapped(np.zeros_like, params), state)


def tree_of(data: bytes) -> Any:
    try:
        return decoded(json.loads(data))
    except (*REFUSALS, RecursionError):
        return None


def arguments_of(tree: Any) -> Any:
    return tree if isinstance(tree, tuple) and len(tree) == 2 else (tree, {})


READERS: dict[int, Callable[[bytes, dict[str, Any]], bool]] = {
    ord("n"): lambda data, kind: load(data, kind, ".npz"),
    ord("s"): lambda data, kind: load(data, kind, ".safetensors"),
    ord("N"): lambda data, kind: load_header(data, kind, ".npz"),
    ord("S"): lambda data, kind: load_header(data, kind, ".safetensors"),
    ord("d"): load_state_dict,
    ord("p"): unpickle,
}


def read(data: bytes) -> bool:
    known = len(data) > 2 and data[0] in READERS
    return known and READERS[data[0]](data[2:], KINDS[data[1] % len(KINDS)])


# ---- where to begin, and how to go on ----


def seeds() -> Iterator[bytes]:
    """Of each kind, what is good."""
    for number, kind in enumerate(KINDS):
        params, state = run_of(kind)
        for raw, header, suffix in [(b"n", b"N", ".npz"), (b"s", b"S", ".safetensors")]:
            data = file_of(params, state, suffix)
            yield raw + bytes([number]) + data
            yield header + bytes([number]) + header_of(data, suffix)
        for letter, tree in [(b"d", state.state_dict()), (b"p", state.__reduce__()[1])]:
            yield letter + bytes([number]) + json.dumps(encoded(tree)).encode()


def mutated(data: bytes, rng: random.Random) -> bytes | None:
    """JSON with one item changed, gone, doubled, or in the place of another; None where it is none."""
    try:
        tree = json.loads(data[2:])
    except (*REFUSALS, RecursionError):
        return None
    found = [(tree_, key) for tree_ in containers_in(tree) for key in keys_of(tree_)]
    if not found:
        return None
    (holder, key), (other, other_key) = rng.choice(found), rng.choice(found)
    way = rng.randrange(5)
    if way == 0:
        del holder[key]
    elif way == 1:
        holder[key] = other[other_key]
    elif way == 2 and isinstance(holder, list):
        holder.insert(key, other[other_key])
    elif way == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice([holder[key] + 1, -holder[key], holder[key] * 2])
    else:
        holder[key] = rng.choice(ATOMS)
    try:
        return data[:2] + json.dumps(tree).encode()
    except ValueError:  # it holds itself now
        return None


ATOMS: list[Any] = [None, True, False, 0, 1, -1, 0.5, -0.0, 1e-45, 1e300, 2**31, 2**62, 2**63, 2**64, 10**400, "", "x", "\0", "w",
                    "\ud800", [], {}, float("nan"), float("inf"), {"tuple": []}, {"dict": []}, {"list": []}]  # fmt: skip


def containers_in(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for key in keys_of(tree):
            yield from containers_in(tree[key])


def keys_of(tree: Any) -> list[Any]:
    return list(tree) if isinstance(tree, dict) else list(range(len(tree)))
