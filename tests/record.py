"""Write what a step gives here into a file, for tests/recorded.cpp to do again elsewhere.

    python tests/record.py FILE

The file, all of it little-endian: MAGIC, the number of cases in eight bytes, and the cases. A case is a HEADER and
pieces of memory: the operands before the call, and those that it writes after the call. The operands of a step are the
parameter, the gradient and all slots that a rule may keep, without a byte where it keeps none; those of a look-ahead are
what it writes, the parameter and the velocity. A piece is all the memory from the first to the last byte of an operand,
with what lies between its elements.

Nothing is written that differs from the reference.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum import _core, reference
from helpers import DTYPES, KINDS, LAYOUTS, OPTIONS, Array, assert_bits, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"momentum"
SLOTS = list(
    dict.fromkeys(slot for row in _core.rules for slot in row["keeps"])
)  # in the order of tables.hpp
OPERAND = np.dtype([("bytes", "<i8"), ("offset", "<i8"), ("strides", "<i8", 3)])  # offset: of element 0
HEADER = np.dtype(
    [
        ("values", "<f8", len(_core.settings)),  # those of tables.hpp, in its order
        ("rule", "<i8"),  # its row in rules.cpp
        ("steps", "<i8"),  # that the array has made, as in Age (rules.hpp)
        ("history", "<f8"),
        ("lookahead", "<i8"),  # 0 for a step
        ("dtype", "<i8"),  # numpy.dtype.num
        ("ndim", "<i8"),
        ("shape", "<i8", 3),
        ("operands", OPERAND, 2 + len(SLOTS)),
    ]
)

# Around the sizes of vectors, unrolled vectors and blocks.
SHORT = [0, 1, 3, 7, 8, 9, 31, 33]
LONG = [255, 511, 513, 1025, 4099]

# Layouts of the parameter and of the gradient, for a shape of several tiles and for a small one.
TILED = [("F", "F"), ("C", "F"), ("every second", "C"), ("reversed", "C")]
SMALL = [
    *TILED,
    ("F", "broadcast"),
    ("sliced", "C"),
    ("C", "strided and reversed"),
    ("all sliced", "permuted"),
]
# A restart looks at all arrays of a step; these are of one.
ONE_OF_EACH_RULE = [
    {"form": "ema"},
    *{kind["rule"]: kind for kind in KINDS if "restart" not in kind}.values(),
]
SHAPES = [((1, 40, 65), TILED), ((3, 9, 7), SMALL), ((), [("0-d", "0-d")])]


def values(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    """Half of them ordinary, a quarter any bits, a quarter at the ends of what the dtype can hold."""
    finfo = np.finfo(dtype)
    ends = [0, finfo.smallest_subnormal, finfo.smallest_normal, finfo.eps, 1, finfo.max, np.inf, np.nan]
    n = int(np.prod(shape))
    kinds = [
        rng.standard_normal(n),
        rng.standard_normal(n),
        rng.integers(0, 256, (n, finfo.dtype.itemsize), np.uint8).view(dtype)[:, 0],
        rng.choice(ends, n) * rng.choice([-1, 1], n),
    ]
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return np.choose(rng.integers(0, 4, n), [kind.astype(dtype) for kind in kinds]).reshape(shape)


def layout(name: str) -> Callable[[Array], Array]:
    if name == "broadcast":
        return lambda x: np.broadcast_to(x[:, :1], x.shape)
    return LAYOUTS.get(name, np.copy)


def memory(array: Array | None) -> bytes:
    if array is None:
        return b""
    low, high = np.lib.array_utils.byte_bounds(array)
    return ctypes.string_at(low, high - low)


def header_of(state: fm.State, age: reference.Age, param: Array) -> np.void:
    header = np.zeros((), HEADER)
    for place, (name, setting) in enumerate(_core.settings.items()):
        value = getattr(state, name, 0)
        choices = setting["choices"]
        if setting["kind"] in ("number", "flag"):
            header["values"][place] = value
        elif setting["kind"] in ("option", "bound"):
            header["values"][place] = np.nan if value is None else value
        elif setting["kind"] == "choice_or_none":
            header["values"][place] = choices.index(value) if value in choices else np.nan
        elif setting["kind"] == "choice_or_number":
            header["values"][place] = -1 - choices.index(value) if value in choices else value
    row = [row["rule"] == state.rule and row["form"] == state.form for row in _core.rules]
    header["rule"] = row.index(True)
    header["steps"], header["history"] = age
    header["dtype"] = param.dtype.num
    header["ndim"] = param.ndim
    header["shape"][: param.ndim] = param.shape
    return header


def case(
    header: np.void, operands: list[Array | None], before: list[bytes], lookahead: bool = False
) -> bytes:
    header["lookahead"] = lookahead
    written = operands[:1] if lookahead else [*operands[:1], *operands[2:]]
    for row, array, piece in zip(header["operands"], operands, before, strict=False):
        row["bytes"] = len(piece)
        if array is None:
            continue
        row["offset"] = array.ctypes.data - np.lib.array_utils.byte_bounds(array)[0]
        row["strides"][: array.ndim] = array.strides
    absent = [b""] * (2 + len(SLOTS) - len(operands))
    return b"".join([header.tobytes(), *before, *absent, *map(memory, written)])


def cases(param: Array, grads: list[Array], out: Array, options: dict[str, Any]) -> Iterator[bytes]:
    """Steps, and after each the look-ahead where there is one."""
    state = make(fm, param, **options)
    expected = param.copy()
    expected_state = make(reference, expected, **options)
    slots = [getattr(state, name, None) for name in SLOTS]  # live
    for grad in grads:
        age = reference.Age(expected_state.steps[()], expected_state.histories[()])
        header = header_of(state, age, param)
        operands = [param, grad, *slots]
        before = [memory(operand) for operand in operands]
        fm.step(param, grad, state)
        reference.step(expected, grad, expected_state)
        assert_bits(param, expected)
        assert_bits(slots, [getattr(expected_state, name, None) for name in SLOTS])
        yield case(header, operands, before)
        if state.rule != "momentum" or state.nesterov:
            continue
        operands = [out, param, state.velocity]
        before = [memory(operand) for operand in operands]
        fm.lookahead(param, state, out)
        assert_bits(out, reference.lookahead(expected, expected_state))
        yield case(header, operands, before, lookahead=True)


def all_cases(rng: np.random.Generator) -> Iterator[bytes]:
    for dtype in DTYPES:
        for options in [options for options in OPTIONS if "restart" not in options]:
            # A kernel knows of the options which terms there are, and nothing else: one form has them all.
            every_term = options.get("form") == "ema" and not options["maximize"]
            without_decay = "rule" in options and "weight_decay" not in options
            for n in SHORT + LONG if every_term or without_decay else SHORT:
                param, out, *grads = [values((n,), dtype, rng) for _ in range(4)]
                yield from cases(param, grads, out, options)
        for shape, layouts in SHAPES:
            for of_param, of_grad in layouts:
                param, out = [layout(of_param)(values(shape, dtype, rng)) for _ in range(2)]
                grads = [layout(of_grad)(values(shape, dtype, rng)) for _ in range(2)]
                for options in ONE_OF_EACH_RULE:
                    yield from cases(param, grads, out, {"lr": 0.05, **options})


def main() -> None:
    written = list(all_cases(np.random.default_rng(20)))
    file = Path(sys.argv[1])
    file.write_bytes(b"".join([MAGIC, np.array(len(written), "<i8").tobytes(), *written]))
    print(f"{len(written)} cases, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
