"""kernel.cpp and update.hpp against the reference: lengths, offsets, options, dtypes, instruction sets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import reference
from helpers import (
    FORMS,
    OPTIONS,
    assert_bits,
    assert_guards,
    assert_steps_agree,
    guarded,
    make,
    model_of,
    option_id,
    random_like,
    run_python,
)

if TYPE_CHECKING:
    from helpers import Array

# From nothing to beyond four vectors of eight, and around the blocks of 256 and 512 in which the kernel works.
LENGTHS = [*range(42), 63, 64, 65, 255, 256, 257, 511, 512, 513, 515, 1023, 1024, 1025, 1543]


@pytest.mark.parametrize("options", OPTIONS, ids=option_id)
def test_lengths_and_offsets(options: dict[str, Any], isa: str, dtype: Any, rng: np.random.Generator) -> None:
    def arrays(shift: int) -> list[Array]:
        """Arrays of each length, which begin at each place in a vector, each operand at another one."""
        return [
            guarded(random_like((n,), dtype, rng), (offset + shift) % 8)
            for n in LENGTHS
            for offset in (0, 1, 3)
        ]

    params = arrays(0)
    grads = [arrays(shift) for shift in (2, 5, 1)]
    assert_steps_agree(params, grads, **options)
    for array in [*params, *grads[0], *grads[1], *grads[2]]:
        assert_guards(array)


def test_every_lane_alike(isa: str, dtype: Any) -> None:
    """One element at each place of a long array gives the same bits: no other arithmetic in body and tail."""
    n = 77
    param, grad = dtype.type(1) / dtype.type(3), dtype.type(0.7)
    params = np.full(n, param)
    state = fm.init(params, lr=0.123, momentum=0.77, weight_decay=0.01, nesterov=True)
    for _ in range(5):
        fm.step(params, np.full(n, grad), state)
        assert len(set(params.tolist())) == 1
        assert len(set(state.velocity.tolist())) == 1


def test_no_fused_multiply_add(isa: str, dtype: Any) -> None:
    """momentum*v + g, with values where one rounding instead of two gives another number."""
    eps = float(np.finfo(dtype).eps)
    v, m = 1 + 3 * eps, 0.5 + eps  # v*m needs more bits than there are
    product = dtype.type(v) * dtype.type(m)
    params = np.zeros(50, dtype)
    state = fm.init(params, lr=1.0, momentum=m)
    fm.step(params, np.full(50, v, dtype), state)
    fm.step(params, np.full(50, -product, dtype), state)
    np.testing.assert_array_equal(state.velocity, 0)  # fused, it would be the rounding error of the product


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.0, "tiny", "smallest", "max"])
@pytest.mark.parametrize("options", OPTIONS, ids=option_id)
def test_special_values(options: dict[str, Any], value: Any, isa: str, dtype: Any) -> None:
    info = np.finfo(dtype)
    special = {"tiny": info.tiny, "smallest": info.smallest_subnormal, "max": info.max}.get(value, value)
    values = np.array([special, 1, -1, 0, -0.0, info.tiny, info.max, 3], dtype)
    params, grads = (a.ravel().copy() for a in np.meshgrid(values, values))
    expected = params.copy()
    state = make(fm, params, **options)
    expected_state = make(reference, expected, **options)
    for g in (grads, -grads, grads[::-1].copy()):
        fm.step(params, g, state)
        reference.step(expected, g, expected_state)
        assert_bits(params, expected)
        assert_bits(model_of(state), model_of(expected_state))


def test_decoupled_decay_does_not_vanish(isa: str) -> None:
    """(1 - lr*w)*p would be p in float32 for an lr*w below 3e-8."""
    params = np.full(20, 2.0**-100, np.float32)
    state = fm.init(params, lr=1e-4, weight_decay=1e-5, decoupled_weight_decay=True)
    fm.step(params, np.full(20, 2.0**-60, np.float32), state)
    expected = np.full(20, 2.0**-100, np.float32)
    reference.step(
        expected,
        np.full(20, 2.0**-60, np.float32),
        reference.init(expected, lr=1e-4, weight_decay=1e-5, decoupled_weight_decay=True),
    )
    assert_bits(params, expected)
    decay = np.float32(1e-4 * 1e-5)
    zero = np.zeros(20, np.float32)
    p = np.full(20, 3e-3, np.float32)
    many = fm.init(p, lr=1e-4, weight_decay=1e-5, decoupled_weight_decay=True)
    fm.step(p, zero, many)
    np.testing.assert_array_equal(p, np.float32(3e-3) - decay * np.float32(3e-3))


def test_large_array_spans_many_blocks(isa: str, dtype: Any, rng: np.random.Generator) -> None:
    params = random_like((300_007,), dtype, rng)
    grads = [random_like((300_007,), dtype, rng) for _ in range(2)]
    assert_steps_agree(params, grads, lr=0.1, momentum=0.9, nesterov=True)


def test_lookahead(isa: str, dtype: Any, rng: np.random.Generator) -> None:
    for form in FORMS:
        params = [random_like((n,), dtype, rng) for n in LENGTHS]
        options = {"lr": 0.3, "momentum": 0.7, "form": form}
        state, expected_state = make(fm, params, **options), make(reference, params, **options)
        grads = [random_like((n,), dtype, rng) for n in LENGTHS]
        fm.step(params, grads, state)
        reference.step([p.copy() for p in params], grads, expected_state)
        assert_bits(fm.lookahead(params, state), reference.lookahead(params, expected_state))


def test_guard_pages(dtype: Any) -> None:
    """Neither parameters nor gradients are read or written past their ends: there the memory is not accessible.
    The gradients cannot be written at all."""
    code = f"""
        import ctypes, mmap
        import numpy as np
        import fast_momentum as fm
        from fast_momentum import _core

        libc = ctypes.CDLL(None, use_errno=True)
        page, dtype = mmap.PAGESIZE, np.dtype("{np.dtype(dtype)}")

        def fenced():
            memory = mmap.mmap(-1, 3 * page)
            start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            for fence in (start, start + 2 * page):
                assert libc.mprotect(ctypes.c_void_p(fence), page, 0) == 0
            return np.frombuffer((ctypes.c_char * page).from_address(start + page), dtype), start + page, memory

        (p, _, keep_p), (g, g_start, keep_g) = fenced(), fenced()
        for isa, found in _core.config()["instruction sets"].items():
            assert not found or _core.use_isa(isa)
            for n in [*range(70), p.size]:
                for at in (slice(0, n), slice(p.size - n, p.size)):
                    p[...] = 1
                    assert libc.mprotect(ctypes.c_void_p(g_start), page, mmap.PROT_READ | mmap.PROT_WRITE) == 0
                    g[...] = 0.5
                    assert libc.mprotect(ctypes.c_void_p(g_start), page, mmap.PROT_READ) == 0
                    for step in (1, 2):
                        params = p[at][::step]
                        state = fm.init(params, lr=0.5, nesterov=True, weight_decay=0.1, maximize=True)
                        fm.step(params, g[at][::step], state)
                        fm.step(params, g[at][::-step], state)
                        whole = fm.init(params, lr=0.5, clip_norm=1.0, average_decay=0.5, compensated=True)
                        fm.step(params, g[at][::step], whole, grad_scale=0.5)
                        fm.global_norm(g[at][::-step])
                        if dtype == np.float32:
                            narrow = fm.init(params, lr=0.5, velocity_dtype="int8", nonfinite="skip")
                            half = g.view(np.float16)
                            fm.step(params, half[: params.size], narrow)
                            fm.step(params, half[half.size - params.size :][::-1], narrow)
        print("ok")
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs mprotect()")
    assert run_python(code).strip() == "ok"
