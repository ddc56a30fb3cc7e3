"""What all ranks do in tests/test_mpi.py: `mpiexec -n 3 python tests/mpi_cases.py folder [case ...]`.

Each rank knows the gradients of all others, and so what one machine makes of their mean. What a case finds wrong on one
rank ends all of them.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI

import fast_momentum as fm
from fast_momentum import _core, mpi
from fast_momentum._containers import leaves, mapped
from helpers import HALVES, bits

if TYPE_CHECKING:
    from collections.abc import Callable

COMM = MPI.COMM_WORLD
N = COMM.size
BLOCK = 4096
SECONDS_OF_A_CASE = 100  # after which it hangs
CASES: dict[str, Callable[[Path], None]] = {}
ALONE: dict[str, Callable[[Path], None]] = {}  # each run for itself


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[function.__name__] = function
    return function


def alone(function: Callable[[Path], None]) -> Callable[[Path], None]:
    ALONE[function.__name__] = function
    return function


def model(*, permuted: bool = False, rows: int = 3 * N) -> Any:
    """Arrays that are cut, that are not, and those of all kinds."""
    rng = np.random.default_rng(0)
    cut = rng.standard_normal((rows, BLOCK + 100)).astype(np.float32)
    return {
        "cut": cut,
        "fortran": np.asfortranarray(rng.standard_normal((70, 130))),
        "nested": [rng.standard_normal(5).astype(np.float32), (np.array(0.5), np.zeros((0, 3), np.float32))],
        "strided": rng.standard_normal((40, 700)).astype(np.float32)[::2, ::-3],
        # The norm of such a gradient is summed up in another order than that of its memory.
        **({"permuted": rng.standard_normal((5, 6, 7)).transpose(2, 0, 1)} if permuted else {}),
    }


def grads_of(params: Any, rank: int, t: int) -> Any:
    """Of a rank, in step t: any numbers, so that the order of the sum matters."""
    rng = np.random.default_rng(1000 * t + rank)

    def gradient(param: Any) -> Any:
        return rng.standard_normal(param.shape).astype(
            np.float64 if param.dtype == np.float64 else np.float32
        )

    return mapped(gradient, params)


def mean(params: Any, trees: list[Any], average: bool = True) -> Any:
    """Formed in the order of ranks, in arrays that lie in memory as the parameters do: the norm is summed up so."""
    by_keys = [dict(leaves(tree)) for tree in trees]
    made = []
    for keys, param in leaves(params):
        of_all = [tree[keys] for tree in by_keys]
        if of_all[0] is None:
            made.append(None)
            continue
        total = np.empty_like(param, np.float64 if param.dtype == np.float64 else np.float32)
        total[...] = of_all[0]
        with np.errstate(all="ignore"):
            for gradient in of_all[1:]:
                total += gradient
            if average:
                total /= total.dtype.type(N)
        made.append(total)
    following = iter(made)
    return mapped(lambda _: next(following), params)


def copied(tree: Any) -> Any:
    return mapped(lambda leaf: None if leaf is None else np.array(leaf, order="K"), tree)


def same(one: Any, other: Any) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(bits(a).tobytes() == bits(b).tobytes() for (_, a), (_, b) in pairs)


def close(one: Any, other: Any) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(
        np.allclose(a.astype(float), b.astype(float), rtol=1e-4, atol=1e-5) for (_, a), (_, b) in pairs
    )


def check_alike(params: Any) -> None:
    """On all ranks, to the bit."""
    mine = b"".join(bits(leaf).tobytes() for _, leaf in leaves(params))
    assert COMM.bcast(mine, 0) == mine, "ranks differ"


def refused(
    kind: type[Exception], text: str, call: Callable[..., object], *arguments: Any, **keywords: Any
) -> None:
    """On all ranks, with this message; and the communicator can be used."""
    message = None
    try:
        call(*arguments, **keywords)
    except kind as error:
        message = str(error)
    assert message is not None, f"{kind.__name__} was not raised: {text}"
    assert text in message, message
    assert COMM.allreduce(1) == N


def compare(rule: str, params: Any, n_steps: int = 3, grad_scale: float = 1.0, **options: Any) -> Any:
    """Steps of all ranks, and those of one machine; returns the state of the first."""
    placement = {
        name: options.pop(name) for name in ("average", "deterministic", "sharded") if name in options
    }
    exact = placement.setdefault("deterministic", True)
    placement.setdefault("sharded", True)
    alone = copied(params)
    state = getattr(mpi, rule)(params, COMM, **placement, **options)
    one = getattr(fm, rule)(alone, **options)
    for t in range(n_steps):
        every = [grads_of(params, rank, t) for rank in range(N)]
        mpi.step(params, every[COMM.rank], state, grad_scale=grad_scale)
        fm.step(alone, mean(alone, every, placement.get("average", True)), one, grad_scale=grad_scale)
        assert (same if exact else close)(params, alone), (rule, options, placement, t)
        check_alike(params)
    assert state.step_count == one.step_count
    assert state.skipped_steps == one.skipped_steps
    if exact:
        assert state.grad_norm == one.grad_norm
    return state


@case
def every_rule(folder: Path) -> None:
    for row in _core.rules:
        options = {"form": row["form"]} if row["form"] else {}
        for sharded in (True, False):
            compare(row["made_by"], model(permuted=True), n_steps=2, lr=0.01, sharded=sharded, **options)
    compare("adam", model(), lr=0.01, deterministic=False)
    compare("init", model(), lr=0.01, deterministic=False, sharded=False)
    compare("adam", model(), lr=0.01, average=False)


@case
def options(folder: Path) -> None:
    decays = {"cut": 0.1, "fortran": 0.0, "nested": [0.1, (0.2, 0.3)], "strided": 0.5}
    for rule, of_one in [
        ("init", {"clip_norm": 1.0}),
        ("adam", {"clip_norm": 1e9, "nonfinite": "raise"}),
        ("adam", {"clip_value": 0.1, "average_decay": 0.9}),
        ("init", {"compensated": True, "nesterov": True}),
        ("adam", {"weight_decay": decays, "decoupled_weight_decay": True, "amsgrad": True}),
        ("rmsprop", {"centered": True, "momentum": 0.9, "maximize": True}),
    ]:
        compare(rule, model(), lr=0.01, grad_scale=0.3, **of_one)
    for dtype, velocity in [
        (np.float32, "int8"),
        (np.float32, "bfloat16"),
        (np.float16, None),
        (np.float16, "int8"),
    ]:
        values = np.random.default_rng(1).standard_normal((2 * N, BLOCK + 33)).astype(dtype)
        compare("init", [values, values[0, :50].copy()], lr=0.01, momentum=0.5, velocity_dtype=velocity)
    for half in HALVES:
        compare(
            "adam",
            [np.ones(3 * N * BLOCK + 7).astype(half)],
            lr=0.01,
            velocity_dtype="float16",
            clip_norm=1.0,
        )
    state = compare("init", model(), lr=0.01, average_decay=0.5)
    state.lr = 0.5
    state.momentum = {"cut": 0.1, "fortran": 0.0, "nested": [0.1, (0.2, 0.3)], "strided": 0.5}
    assert state.momentum["nested"][1][0] == 0.2


@case
def averages_and_lookahead(folder: Path) -> None:
    params = model()
    state = mpi.init(params, COMM, lr=0.1, average_decay=0.5, deterministic=True, sharded=True)
    alone = copied(params)
    one = fm.init(alone, lr=0.1, average_decay=0.5)
    for t in range(2):
        every = [grads_of(params, rank, t) for rank in range(N)]
        mpi.step(params, every[COMM.rank], state)
        fm.step(alone, mean(alone, every), one)
    assert same(mpi.lookahead(params, state), fm.lookahead(alone, one))
    out = copied(params)
    assert mpi.lookahead(params, state, out) is out
    assert same(out, fm.lookahead(alone, one))
    state.swap_average(params)
    one.swap_average(alone)
    assert same(params, alone)
    refused(ValueError, "must be the parameters, not their average", mpi.step, params, params, state)
    state.swap_average(params)
    one.swap_average(alone)
    assert same(params, alone)
    every = [grads_of(params, rank, 7) for rank in range(N)]
    for average in (True, False):
        found = mpi.global_norm(every[COMM.rank], COMM, average=average, deterministic=True)
        assert found == fm.global_norm(mean(alone, every, average))
    assert np.isclose(mpi.global_norm(every[COMM.rank], COMM), fm.global_norm(mean(alone, every)))


@case
def gradients_of_every_kind(folder: Path) -> None:
    """None, other layouts and dtypes, other memory than at first, zeros afterwards."""
    params = model()
    state = mpi.adam(params, COMM, lr=0.1, clip_norm=1.0, deterministic=True, sharded=True)
    alone = copied(params)
    one = fm.adam(alone, lr=0.1, clip_norm=1.0)
    params = {
        key: mapped(lambda p: np.repeat(p, 2, axis=-1)[..., ::2] if p.ndim else p, params[key])
        for key in reversed(params)
    }
    for t, without in enumerate(["fortran", "cut", None]):
        every = [grads_of(params, rank, t) for rank in range(N)]
        for tree in every:
            tree["nested"] = tuple(tree["nested"])
            tree["strided"] = np.asfortranarray(tree["strided"])
            if without:
                tree[without] = None
        ours = {key: every[COMM.rank][key] for key in params}
        expected = mean(alone, every)
        mpi.step(params, ours, state, zero_grads=True)
        fm.step(alone, expected, one)
        assert all(same(params[key], alone[key]) for key in params)
        assert not any(leaf.any() for _, leaf in leaves(ours) if leaf is not None)
    half = np.linspace(0, 1, 3 * N * BLOCK).astype(np.float16)
    param = np.zeros(half.size, np.float32)
    state = mpi.init(param, COMM, lr=0.1, average=False)
    mpi.step(param, half if COMM.rank else half.astype(np.float32), state)
    assert np.allclose(param, -0.1 * N * half.astype(np.float32), rtol=1e-5)


@case
def few_elements(folder: Path) -> None:
    for params in ([], [np.zeros(0)], np.array(1.0), [np.ones(2, np.float32), np.ones(1)]):
        for sharded in (True, False, None):
            compare("init", copied(params), lr=0.1, clip_norm=1.0, sharded=sharded)


@case
def not_finite(folder: Path) -> None:
    for sharded in (True, False):
        params = model()
        before = copied(params)
        bad = N - 1
        for policy in ("skip", "raise", "propagate"):
            state = mpi.adam(params, COMM, lr=0.1, nonfinite=policy, sharded=sharded)
            grads = grads_of(params, COMM.rank, 0)
            if COMM.rank == bad:
                grads["cut"][1, 3] = np.nan
            if policy == "raise":
                text = f"rank {bad}: grads['cut'] must be finite, not nan at (1, 3)"
                refused(fm.NonFiniteGradientError, text, mpi.step, params, grads, state)
                assert (state.step_count, state.skipped_steps) == (0, 0)
            else:
                mpi.step(params, grads, state)
                assert (state.step_count, state.skipped_steps) == ((0, 1) if policy == "skip" else (1, 0))
            assert same(params, before) == (policy != "propagate")
        assert np.isnan(params["cut"][1, 3])
        assert np.isnan(params["cut"]).sum() == 1
        large = np.full(3, 2e38, np.float32)
        param = np.zeros(3, np.float32)
        state = mpi.init(param, COMM, lr=0.1, nonfinite="raise", sharded=sharded)
        if N > 1:
            refused(
                fm.NonFiniteGradientError,
                "the sum of grads over all ranks",
                mpi.step,
                param,
                large,
                state,
            )
        assert not param.any()


@case
def refusals(folder: Path) -> None:
    """One rank is refused, and all raise; nothing is changed, and the next step is made."""
    for sharded in (True, False):
        params = model()
        state = mpi.adam(params, COMM, lr=0.1, deterministic=True, sharded=sharded)
        mpi.step(params, grads_of(params, COMM.rank, 0), state)
        before = copied(params)
        share = {key: value for key, value in state.share.state_dict().items() if key != "velocity"}
        bad = N // 2
        good = grads_of(params, COMM.rank, 1)
        if COMM.rank == bad:
            wrong = {**good, "fortran": np.zeros((3, 4))}
            no_key = {key: value for key, value in good.items() if key != "cut"}
            single = {**good, "fortran": good["fortran"].astype(np.float32)}
        else:
            wrong = no_key = single = good
        refused(
            ValueError,
            f"rank {bad}: grads['fortran'] must have the shape",
            mpi.step,
            params,
            wrong,
            state,
        )
        refused(ValueError, f"rank {bad}: ", mpi.step, params, no_key, state)
        refused(TypeError, f"rank {bad}: grads['fortran'] must", mpi.step, params, single, state)
        if N > 1:
            other = good if COMM.rank != bad else {**good, "cut": None}
            refused(
                ValueError,
                "where grads are None must be the same on all ranks",
                mpi.step,
                params,
                other,
                state,
            )
            scale = 2.0 if COMM.rank == N - 1 else 1.0
            refused(
                ValueError,
                "grad_scale must be the same on all ranks",
                mpi.step,
                params,
                good,
                state,
                grad_scale=scale,
            )
            state.lr = 0.2 if COMM.rank == N - 1 else 0.1
            refused(
                ValueError,
                "state.lr must be the same on all ranks, 0.1",
                mpi.step,
                params,
                good,
                state,
            )
            state.lr = 0.1
        if COMM.rank == bad:
            state._turn.busy.acquire()  # another thread is in a call
            threading.Timer(0.2, state._turn.busy.release).start()
        refused(
            fm.ConcurrentStepError,
            f"rank {bad}: state must not be in use",
            mpi.step,
            params,
            good,
            state,
        )
        assert same(params, before)
        assert state.step_count == 1
        assert {
            key: value for key, value in state.share.state_dict().items() if key != "velocity"
        }.keys() == share.keys()
        alone = copied(before)
        mpi.step(params, good, state)
        assert state.step_count == 2
        check_alike(params)
        assert not same(params, alone)


@case
def different_at_first(folder: Path) -> None:
    def make(array: Any, **settings: Any) -> Callable[[], object]:
        return lambda: mpi.init({"w": array}, COMM, **{"lr": 0.1, **settings})

    last = COMM.rank == N - 1
    good = np.ones((3, 4), np.float32)
    refused(TypeError, "rank 0: init() must not have the keyword beta1" if N == 1 else "must not have the keyword beta1",
            make(good, beta1=0.5))  # fmt: skip
    refused(
        TypeError,
        "params['w'] must be real in fast_momentum.mpi, not complex64",
        make(good.astype(np.complex64)),
    )
    refused(
        ValueError,
        "state.restart must be None",
        lambda: mpi.accelerated(good, COMM, lr=0.1, restart="gradient"),
    )
    if N == 1:
        return
    for name, array in [
        ("dtype", good.astype(float)),
        ("shape", good[:2]),
        ("order of axes in memory", np.asfortranarray(good)),
        ("checksum of values", good * 2),
    ]:
        refused(
            ValueError,
            f"the {name} of params['w'] must be the same on all ranks",
            make(array if last else good),
        )
    refused(
        ValueError,
        f"rank {N - 1}: the arrays of params must be the same",
        mpi.init,
        {"v" if last else "w": good},
        COMM,
        lr=0.1,
    )
    refused(ValueError, "state.lr must be the same", make(good, lr=0.2 if last else 0.1))
    refused(TypeError, f"rank {N - 1}: ", make([1.0, 2.0] if last else good))
    refused(ValueError, "deterministic must be the same", make(good, deterministic=last))


@case
def memory(folder: Path) -> None:
    """What is kept is there once over all ranks; each has its part within a percent."""
    elements = 2_000_000
    state = mpi.adam(
        [np.zeros(elements, np.float32), np.zeros(123_457, np.float32)], COMM, lr=0.1, average_decay=0.9
    )
    kept = [
        sum(array.nbytes for array in slot)
        for slot in (state.share.velocity, state.share.second_moment, state.share.average)
    ]
    total = 4 * (elements + 123_457)
    assert [COMM.allreduce(n) for n in kept] == [total] * 3
    assert all(abs(n * N / total - 1) < 0.01 for n in kept)


def trained(maker: Callable[..., Any], params: Any, n_steps: int, *arguments: Any, **options: Any) -> Any:
    state = maker(params, *arguments, lr=0.01, **options)
    for t in range(n_steps):
        every = [grads_of(params, rank, t) for rank in range(N)]
        if arguments:
            mpi.step(params, every[COMM.rank], state)
        else:
            fm.step(params, mean(params, every), state)
    return state


KINDS: list[dict[str, Any]] = [
    {"rule": "adam", "amsgrad": True, "average_decay": 0.9, "momentum_decay": 0.004, "nesterov": True},
    {
        "rule": "init",
        "compensated": True,
        "weight_decay": {"cut": 0.1, "fortran": 0.0, "nested": 0.2, "strided": 0.3, "permuted": 0.4},
    },
    {"rule": "rmsprop", "velocity_dtype": "bfloat16", "centered": True},
    {"rule": "init", "velocity_dtype": "int8"},
]


def model_of(kind: dict[str, Any]) -> Any:
    params = model(permuted=True)
    if "velocity_dtype" in kind:  # for float32 alone
        params = [
            *(p for p in params.values() if getattr(p, "dtype", None) == np.float32),
            params["cut"].astype(np.float16),
        ]
    return params


@case
def files(folder: Path) -> None:
    """What is written is what one machine writes, to the byte; and is read by both."""
    suffixes = [".npz", *([".safetensors"] if importlib.util.find_spec("safetensors") else [])]
    for suffix, kind, sharded in itertools.product(suffixes, KINDS, (True, False)):
        options = {**kind, "sharded": sharded, "deterministic": True}
        maker = getattr(mpi, options.pop("rule"))
        params = model_of(kind)
        state = trained(maker, params, 2, COMM, **options)
        path = folder / f"of{N}{suffix}"
        mpi.save(path, params, state, {"rank": COMM.rank})
        alone = model_of(kind)
        one = trained(getattr(fm, kind["rule"]), alone, 2, **{k: v for k, v in kind.items() if k != "rule"})
        other = folder / f"alone{COMM.rank}{suffix}"
        fm.save(other, alone, one, {"rank": 0})
        assert path.read_bytes() == other.read_bytes(), (kind, suffix)

        grads = grads_of(params, COMM.rank, 9)
        mpi.step(params, grads, state)
        fresh = model_of(kind)
        again = trained(maker, fresh, 0, COMM, **options)
        assert mpi.restore(path, fresh, again) == {"rank": 0}
        assert again.step_count == 2
        assert again.lr == 0.01
        mpi.step(fresh, grads, again)
        assert same(fresh, params)
        loaded, of_one, _ = fm.load(path)
        assert same(loaded, alone)
        for name in [name for name in one.state_dict() if isinstance(one.state_dict()[name], dict)]:
            values, expected = of_one.state_dict()[name], one.state_dict()[name]
            assert all(
                np.array_equal(values[key], expected[key])
                for key in expected
                if isinstance(expected[key], np.ndarray)
            )
        COMM.Barrier()


@case
def files_between_numbers_of_ranks(folder: Path) -> None:
    """Saved by all, restored by the first ranks alone; and saved by one, restored by all."""
    kind = KINDS[0]
    options = {key: value for key, value in kind.items() if key != "rule"}
    params = model_of(kind)
    state = trained(mpi.adam, params, 2, COMM, sharded=True, deterministic=True, **options)
    path = folder / f"between{N}.npz"
    mpi.save(path, params, state)
    fewer = COMM.Split(0 if COMM.rank < (N + 1) // 2 else 1)
    fresh = model_of(kind)
    of_fewer = mpi.adam(fresh, fewer, lr=1.0, sharded=True, deterministic=True, **options)
    mpi.restore(path, fresh, of_fewer)
    assert same(fresh, params)
    mpi.save(folder / f"fewer{N}-{COMM.rank // ((N + 1) // 2)}.npz", fresh, of_fewer)
    COMM.Barrier()
    assert (folder / f"fewer{N}-0.npz").read_bytes() == path.read_bytes()
    fewer.Free()


@case
def files_refused(folder: Path) -> None:
    params = [np.ones((3 * N, BLOCK), np.float32)]
    state = mpi.adam(params, COMM, lr=0.1, sharded=True)
    path = folder / f"refused{N}.npz"
    refused(ValueError, "path must end in", mpi.save, folder / "run.txt", params, state)
    refused(
        FileNotFoundError,
        "rank 0: path must be in a folder that there is",
        mpi.save,
        folder / "none" / "run.npz",
        params,
        state,
    )
    refused(
        TypeError,
        f"rank {N // 2}: extra must be what JSON can hold",
        mpi.save,
        path,
        params,
        state,
        object() if COMM.rank == N // 2 else None,
    )
    mpi.save(path, params, state)
    before = copied(params)
    other = mpi.init(params, COMM, lr=0.1, sharded=True)
    refused(ValueError, "state must have the rule 'adam'", mpi.restore, path, params, other)
    refused(
        ValueError,
        "must have the shape that was saved",
        mpi.restore,
        path,
        [params[0][1:].copy()],
        mpi.adam([params[0][1:].copy()], COMM, lr=0.1, sharded=True),
    )
    # One rank sees another file.
    mine = path
    if COMM.rank == N - 1:
        content = bytearray(path.read_bytes())
        content[-3 * BLOCK] ^= 1
        mine = folder / f"damaged{N}.npz"
        mine.write_bytes(content)
    refused(fm.DamagedFileError, f"rank {N - 1}: ", mpi.restore, mine, params, state)
    assert same(params, before)
    mpi.restore(path, params, state)


# ---- what runs for itself ----


@st.composite
def models(draw: st.DrawFn) -> list[Any]:
    shapes = st.sampled_from(
        [(), (0, 2), (5,), (3, 4), (BLOCK + 1,), (4 * BLOCK,), (70, 200), (5 * BLOCK + 9, 2)]
    )
    layouts: list[Callable[[Any], Any]] = [
        np.asarray,
        np.asfortranarray,
        lambda a: a[..., ::-1] if a.ndim else a,
    ]
    layouts.append(lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a)
    dtypes = st.sampled_from([np.float32, np.float64, *HALVES])
    kinds = draw(st.lists(st.tuples(shapes, dtypes, st.sampled_from(layouts)), max_size=4))
    rng = np.random.default_rng(0)
    return [layout(rng.standard_normal(shape).astype(dtype)) for shape, dtype, layout in kinds]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    row = draw(st.sampled_from(_core.rules))
    options: dict[str, Any] = {"lr": 0.01} | ({"form": row["form"]} if row["form"] else {})
    several = {
        "clip_norm": st.sampled_from([0.5, 1e9, np.inf]),
        "clip_value": st.just(0.5),
        "average_decay": st.just(0.9),
        "compensated": st.booleans(),
        "maximize": st.booleans(),
        "nonfinite": st.sampled_from(["skip", "propagate"]),
        "velocity_dtype": st.sampled_from(["float16", "bfloat16", "int8"]),
        "weight_decay": st.just(0.1),
        "decoupled_weight_decay": st.booleans(),
        "nesterov": st.booleans(),
        "amsgrad": st.booleans(),
        "centered": st.booleans(),
    }
    for name in draw(st.lists(st.sampled_from(sorted(several)), unique=True, max_size=4)):
        if name in row["takes"]:
            options[name] = draw(several[name])
    return row["made_by"], options


@alone
def any_model(folder: Path) -> None:
    """What one machine makes of it, or refuses, all ranks do; they draw the same examples, and judge them together."""

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(models(), calls(), st.booleans(), st.booleans(), st.sampled_from([1.0, 0.3]), st.integers(0, 15))
    def test(
        params: list[Any],
        call: tuple[str, dict[str, Any]],
        average: bool,
        sharded: bool,
        scale: float,
        without: int,
    ) -> None:
        rule, options = call
        by_one, by_all = outcomes(params, rule, options, average, sharded, scale, without)
        good = by_one[1] == by_all[1] and same(by_one[0], by_all[0])
        assert COMM.allreduce(good, MPI.LAND), (rule, options, by_one[1], by_all[1])

    test()


def outcomes(
    params: list[Any],
    rule: str,
    options: dict[str, Any],
    average: bool,
    sharded: bool,
    scale: float,
    without: int,
) -> Any:
    alone, spread = copied(params), copied(params)
    try:
        one = getattr(fm, rule)(alone, **options)
    except (ValueError, TypeError) as error:
        message = str(error)
        try:
            getattr(mpi, rule)(spread, COMM, **options)
        except type(error) as refusal:
            return (alone, message), (spread, str(refusal).removeprefix("rank 0: "))
        return (alone, message), (spread, "nothing refused")
    state = getattr(mpi, rule)(spread, COMM, average=average, sharded=sharded, deterministic=True, **options)
    for t in range(2):
        every = [
            [None if without >> i & 1 else grad for i, grad in enumerate(grads_of(params, rank, t))]
            for rank in range(N)
        ]
        fm.step(alone, mean(alone, every, average), one, grad_scale=scale)
        mpi.step(spread, every[COMM.rank], state, grad_scale=scale)
    return (alone, str(one.grad_norm)), (spread, str(state.grad_norm))


def train_and_save(folder: Path, n_steps: int) -> Any:
    params = model(rows=9)
    state = mpi.adam(params, COMM, lr=0.01, sharded=True)
    for t in range(n_steps):
        mpi.step(params, grads_of(model(rows=9), COMM.rank, t), state)
        mpi.save(folder / "run.npz", params, state, {"t": t})
    return params, state


@alone
def killed_in_a_step(folder: Path) -> None:
    params, state = train_and_save(folder, 3)
    if COMM.rank == N - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    mpi.step(params, grads_of(model(rows=9), COMM.rank, 3), state)


@alone
def killed_while_saving(folder: Path) -> None:
    """Rank 0 is sent the pieces of some arrays, and then no more."""
    params, state = train_and_save(folder, 3)
    mpi.step(params, grads_of(model(rows=9), COMM.rank, 3), state)
    if COMM.rank == N - 1:
        asked = iter(range(2))
        pieces = type(COMM).bcast

        class Dying(type(COMM)):  # type: ignore[misc]  # the class that mpi4py has made of it
            def bcast(self, thing: Any, root: int = 0) -> Any:
                if next(asked, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return pieces(self, thing, root)

        state._exchange.comm = Dying(COMM)
    mpi.save(folder / "run.npz", params, state, {"t": 3})


@alone
def restored(folder: Path) -> None:
    """On however many ranks there are: the last checkpoint, whole."""
    params = model(rows=9)
    state = mpi.adam(params, COMM, lr=1.0, sharded=True)
    assert mpi.restore(folder / "run.npz", params, state) == {"t": 2}
    assert (state.step_count, state.lr) == (3, 0.01)
    mpi.step(params, grads_of(params, COMM.rank, 3), state)
    check_alike(params)


def main() -> None:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        faulthandler.dump_traceback_later(SECONDS_OF_A_CASE, exit=True)
        begin = time.perf_counter()
        try:
            {**CASES, **ALONE}[name](folder)
        except BaseException:  # noqa: BLE001 - of whatever kind, the others wait
            traceback.print_exc()
            print(f"rank {COMM.rank} of {N}, in {name}", file=sys.stderr, flush=True)
            COMM.Abort(1)
        COMM.Barrier()
        if COMM.rank == 0:
            print(f"passed {name} {time.perf_counter() - begin:.1f}", flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
