"""The kernels for Cython and C: real programs, compiled here, make the same bits, and get codes for what is wrong."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core, reference
from fast_momentum._include import get_include
from helpers import (
    DTYPES,
    FORMS,
    ISAS,
    OPTIONS,
    OPTIONS_OF_MOMENTUM,
    assert_bits,
    assert_guards,
    guarded,
    isa_in_use,
    make,
    option_id,
    random_like,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TESTS = Path(__file__).parent
PACKAGE = Path(fm.__file__).parent
HEADER = (PACKAGE / "include" / "fast_momentum.h").read_text()
PAGE = (TESTS.parent / "docs" / "howto" / "cython_and_c.md").read_text()
PXD = (PACKAGE / "cython_momentum.pxd").read_text()
ABI_1 = TESTS / "data" / "abi_1"  # the header of programs that are compiled already


def constants(header: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"\bFAST_MOMENTUM_(\w+) = (\d+)", header)}


C = constants(HEADER)
CODES = {value: name for name, value in C.items() if name == "OK" or re.match("BAD|NULL|MIS|OVER", name)}
CODES_OF_ADAM = {C[name] for name in ("BAD_BETA1", "BAD_BETA2", "BAD_EPS", "BAD_MAXIMUM")}
LENGTHS = [0, 1, 7, 511, 512, 513, 5000]

COMPILER = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cl").split()[0]
needs_compiler = pytest.mark.skipif(not shutil.which(COMPILER), reason=f"needs {COMPILER}")
needs_unix = pytest.mark.skipif(os.name != "posix", reason="the options of a Unix compiler")

SETUP = """
from setuptools import Extension, setup

setup(name="consumer", ext_modules=[Extension({name!r}, [{source!r}], include_dirs=[{include!r}])])
"""


def environment() -> dict[str, str]:
    """With the package for Cython, also where its install is editable."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def build_extensions(folder: Path) -> None:
    """What setup.py says, as users do it."""
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def build(folder: Path, source: Path, name: str, include: str | Path = "") -> Path:
    """The compiled module `name`, made in `folder`."""
    shutil.copyfile(source, folder / f"{name}{source.suffix}")
    setup = SETUP.format(name=name, source=f"{name}{source.suffix}", include=str(include or get_include()))
    (folder / "setup.py").write_text(setup)
    build_extensions(folder)
    return folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cython_program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("Cython")
    return load(build(tmp_path_factory.mktemp("cython"), TESTS / "consumer.pyx", "consumer_cython"))


@pytest.fixture(scope="module")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(build(tmp_path_factory.mktemp("c"), TESTS / "consumer.c", "consumer_c"))


@pytest.fixture(scope="module")
def abi_1_program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(build(tmp_path_factory.mktemp("abi_1"), TESTS / "consumer.c", "consumer_c", ABI_1))


@pytest.fixture(params=["cython", "c", "abi_1"])
def program(request: pytest.FixtureRequest) -> Any:
    if not shutil.which(COMPILER):
        pytest.skip(f"needs {COMPILER}")
    return request.getfixturevalue(f"{request.param}_program")


@pytest.fixture(params=["cython", "c"])
def newer_program(request: pytest.FixtureRequest) -> Any:
    """Which knows the functions that take settings, too."""
    if not shutil.which(COMPILER):
        pytest.skip(f"needs {COMPILER}")
    return request.getfixturevalue(f"{request.param}_program")


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def flags_of(**on: bool) -> int:
    return sum(C[name.upper()] for name, is_on in on.items() if is_on)


def numbers_of(
    *, lr: float, momentum: float = 0.9, dampening: float = 0.0, weight_decay: float = 0.0
) -> tuple[float, ...]:
    return lr, momentum, dampening, weight_decay


def arguments(options: dict[str, Any], first: bool) -> tuple[Any, ...]:
    """Form, flags and numbers of a step with the options of init()."""
    flags = {k: v for k, v in options.items() if v is True}
    numbers = {k: v for k, v in options.items() if isinstance(v, float)}
    return C[options["form"].upper()], flags_of(**flags, first=first), *numbers_of(**numbers)


# What the header offers: later rules may be missing there.
ROWS = [row for row in _core.rules if row["linear"] and (row["form"] or row["rule"]).upper() in C]
RULES = [row["form"] or row["rule"] for row in ROWS]  # by their numbers
OFFERED = [o for o in OPTIONS if o.get("rule", "momentum") in {row["rule"] for row in ROWS}]
TAKEN = [name for name in _core.settings if any(name in row["takes"] for row in ROWS)]
NUMBERS = [name for name in TAKEN if _core.settings[name]["kind"] == "number"]
FLAGS = [
    name for name in TAKEN if _core.settings[name]["kind"] == "flag" and not _core.settings[name]["fixed"]
]


# And of Adam, which has a function of its own.
FORMS_OF_ADAM = [row["form"] for row in _core.rules if row["rule"] == "adam"]
NUMBERS_OF_ADAM = ["lr", "beta1", "beta2", "eps", "weight_decay"]
FLAGS_OF_ADAM = [*FLAGS, "amsgrad"]
OPTIONS_OF_ADAM = [o for o in OPTIONS if o.get("rule") == "adam" and "momentum_decay" not in o]


def settings_of(program: Any, state: Any, steps: int) -> bytes:
    numbers = {name: getattr(state, name, 0.0) for name in NUMBERS}
    flags = flags_of(**{name: getattr(state, name, False) for name in FLAGS})
    return settings(program, rule=RULES.index(state.form or state.rule), flags=flags, steps=steps, **numbers)


def settings(program: Any, *, rule: int, flags: int = 0, steps: int = 0, lr: float = 0.1, momentum: float = 0.0,
             dampening: float = 0.0, weight_decay: float = 0.0, nu: float = 0.0) -> bytes:  # fmt: skip
    return bytes(program.settings(rule, flags, steps, lr, momentum, dampening, weight_decay, nu))


def adam_settings_of(program: Any, state: Any, steps: int) -> bytes:
    flags = flags_of(**{name: getattr(state, name) for name in FLAGS_OF_ADAM})
    numbers = {name: getattr(state, name) for name in NUMBERS_OF_ADAM}
    return adam_settings(program, form=state.form, flags=flags, steps=steps, **numbers)


def adam_settings(program: Any, *, form: str | int, flags: int = 0, steps: int = 0, lr: float = 0.1,
                  beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                  weight_decay: float = 0.0) -> bytes:  # fmt: skip
    number = C[f"ADAM_{form.upper()}"] if isinstance(form, str) else form
    return bytes(program.adam_settings(number, flags, steps, lr, beta1, beta2, eps, weight_decay))


def pointed(given: bytes | None) -> int:
    """Its address, for as long as it lives; that of none is null."""
    return 0 if given is None else address(np.frombuffer(given, np.uint8))


# ---- the same bits ----


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS_OF_MOMENTUM, ids=option_id)
def test_step_has_the_bits_of_step(
    program: Any, options: dict[str, Any], dtype: np.dtype[Any], isa: str, rng: np.random.Generator
) -> None:
    typed = getattr(program, f"step_{dtype}")
    for n in LENGTHS:
        param = random_like((n,), dtype, rng)
        ours = [guarded(param, 3), guarded(param, 1)]
        velocities = [guarded(np.zeros_like(param), 7) for _ in ours]
        expected, stepped = param.copy(), param.copy()
        state, expected_state = fm.init(stepped, **options), reference.init(expected, **options)
        for first in (True, False, False):
            grad = guarded(random_like((n,), dtype, rng), 5)
            before = grad.copy()
            a, b = ([address(x) for x in (p, grad, v)] for p, v in zip(ours, velocities, strict=True))
            with isa_in_use(isa):
                assert typed(*a, n, *arguments(options, first)) == C["OK"]
                assert program.step(C[dtype.name.upper()], *b, n, *arguments(options, first)) == C["OK"]
            fm.step(stepped, grad, state)
            reference.step(expected, grad, expected_state)
            assert_bits(grad, before)
            assert_bits(stepped, expected)
            for p, v in zip(ours, velocities, strict=True):
                assert_bits(p, expected)
                assert_bits(v, expected_state.velocity)
                assert_guards(p)
                assert_guards(v)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_lookahead_has_the_bits_of_lookahead(
    program: Any, form: str, dtype: np.dtype[Any], rng: np.random.Generator
) -> None:
    for n in LENGTHS:
        param = random_like((n,), dtype, rng)
        state = fm.init(param, lr=0.05, momentum=0.8, form=form)
        fm.step(param, random_like((n,), dtype, rng), state)
        expected = fm.lookahead(param, state)
        out = [guarded(np.zeros_like(param), 3) for _ in range(2)]
        given = [address(param), address(state.velocity), n, C[form.upper()], 0.05, 0.8]
        assert getattr(program, f"lookahead_{dtype}")(address(out[0]), *given) == C["OK"]
        assert program.lookahead(C[dtype.name.upper()], address(out[1]), *given) == C["OK"]
        for array in out:
            assert_bits(array, expected)
            assert_guards(array)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OFFERED, ids=option_id)
def test_update_has_the_bits_of_step(
    newer_program: Any, options: dict[str, Any], dtype: np.dtype[Any], isa: str, rng: np.random.Generator
) -> None:
    for n in LENGTHS:
        param, velocity = random_like((n,), dtype, rng), guarded(np.zeros(n, dtype), 7)
        ours, expected, stepped = guarded(param, 3), param.copy(), param.copy()
        state, expected_state = make(fm, stepped, **options), make(reference, expected, **options)
        for steps in range(3):
            grad = guarded(random_like((n,), dtype, rng), 5)
            before = grad.copy()
            given = settings_of(newer_program, state, steps)
            arrays = address(ours), address(grad), address(velocity)
            with isa_in_use(isa):
                code = newer_program.update(pointed(given), C[dtype.name.upper()], *arrays, n)
            assert code == C["OK"], CODES[code]
            fm.step(stepped, grad, state)
            reference.step(expected, grad, expected_state)
            assert_bits(grad, before)
            assert_bits([ours, velocity], [expected, expected_state.velocity])
            assert_bits(stepped, expected)
            assert_guards(ours)
            assert_guards(velocity)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OFFERED, ids=option_id)
def test_lookahead_with_has_the_bits_of_lookahead(
    newer_program: Any, options: dict[str, Any], dtype: np.dtype[Any], rng: np.random.Generator
) -> None:
    """And refuses what lookahead() refuses."""
    param = random_like((513,), dtype, rng)
    state = make(fm, param, **options)
    fm.step(param, random_like((513,), dtype, rng), state)
    out = guarded(np.zeros_like(param), 3)
    expected, refusal = out.copy(), "OK"
    try:
        expected = fm.lookahead(param, state)
    except ValueError as refused:
        refusal = "BAD_FLAGS" if "nesterov" in str(refused) else "BAD_FORM"
    given, arrays = settings_of(newer_program, state, 1), [address(x) for x in (out, param, state.velocity)]
    code = newer_program.lookahead_with(pointed(given), C[dtype.name.upper()], *arrays, 513)
    assert CODES[code] == refusal
    assert_bits(out, expected)
    assert_guards(out)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS_OF_ADAM, ids=option_id)
def test_adam_has_the_bits_of_step(
    newer_program: Any, options: dict[str, Any], dtype: np.dtype[Any], isa: str, rng: np.random.Generator
) -> None:
    for n in LENGTHS:
        param = random_like((n,), dtype, rng)
        ours, expected, stepped = guarded(param, 3), param.copy(), param.copy()
        state, expected_state = make(fm, stepped, **options), make(reference, expected, **options)
        names = [name for name in expected_state.keeps if getattr(state, name) is not None]
        moments = [guarded(np.zeros(n, dtype), place) for place in range(len(names))]
        absent = [0] * (3 - len(names))
        for steps in range(3):
            grad = guarded(random_like((n,), dtype, rng), 5)
            before = grad.copy()
            given = adam_settings_of(newer_program, state, steps)
            arrays = [address(array) for array in (ours, grad, *moments)] + absent
            with isa_in_use(isa):
                code = newer_program.adam(pointed(given), C[dtype.name.upper()], *arrays, n)
            assert code == C["OK"], CODES[code]
            fm.step(stepped, grad, state)
            reference.step(expected, grad, expected_state)
            assert_bits(grad, before)
            assert_bits([ours, *moments], [expected, *(getattr(expected_state, name) for name in names)])
            assert_bits(stepped, expected)
            for array in (ours, *moments):
                assert_guards(array)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS_OF_ADAM)
@pytest.mark.parametrize("steps", [999, 10**6, 2**62 - 1])
def test_adam_in_later_steps(
    newer_program: Any, form: str, dtype: np.dtype[Any], steps: int, rng: np.random.Generator
) -> None:
    param, velocity = random_like((9,), dtype, rng), random_like((9,), dtype, rng)
    second_moment, grad = velocity**2, random_like((9,), dtype, rng)
    state = fm.adam(param.copy(), lr=0.05, form=form)
    kept = {"velocity": velocity, "second_moment": second_moment, "steps": steps}
    state.load_state_dict({**state.state_dict(), **{name: {"": value} for name, value in kept.items()}})
    expected = param.copy()
    fm.step(expected, grad, state)
    given = adam_settings_of(newer_program, state, steps)
    arrays = [address(array) for array in (param, grad, velocity, second_moment)]
    code = newer_program.adam(pointed(given), C[dtype.name.upper()], *arrays, 0, 9)
    assert code == C["OK"], CODES[code]
    assert_bits([param, velocity, second_moment], [expected, state.velocity, state.second_moment])


@needs_compiler
def test_threads_at_once_without_the_gil(cython_program: Any, rng: np.random.Generator) -> None:
    target = rng.normal(size=300)
    starts = [rng.normal(size=300) for _ in range(4)]
    fitted = [start.copy() for start in starts]
    with ThreadPoolExecutor(len(starts)) as pool:
        assert list(pool.map(lambda p: cython_program.fit(p, target, 500), fitted)) == [C["OK"]] * 4
    for start, found in zip(starts, fitted, strict=True):
        state = reference.init(start, lr=0.1, momentum=0.9, nesterov=True, form="ema")
        for _ in range(500):
            reference.step(start, start - target, state)
        assert_bits(found, start)


# ---- codes ----

GOOD: dict[str, Any] = {
    "dtype": None,
    "param": 0,
    "grad": 8,
    "velocity": 16,
    "n": 8,
    "form": C["LR_OUTSIDE"],
    "flags": 0,
    "lr": 0.1,
    "momentum": 0.9,
    "dampening": 0.0,
    "weight_decay": 0.0,
}
LOOKAHEAD = {"dtype", "param", "grad", "velocity", "n", "form", "lr", "momentum"}
NULL = "null"

# What is changed in GOOD, and the code. Pointers are elements of one array of 24; of_half is an odd address.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"dtype": 23}, "BAD_DTYPE"),
    ({"dtype": 0}, "BAD_DTYPE"),
    ({"dtype": -1}, "BAD_DTYPE"),
    ({"form": len(RULES)}, "BAD_FORM"),
    ({"form": -1}, "BAD_FORM"),
    ({"flags": 16}, "BAD_FLAGS"),
    ({"flags": -1}, "BAD_FLAGS"),
    ({"lr": -0.1}, "BAD_LR"),
    ({"lr": math.nan}, "BAD_LR"),
    ({"lr": math.inf}, "BAD_LR"),
    ({"momentum": 1.0}, "BAD_MOMENTUM"),
    ({"momentum": -0.1}, "BAD_MOMENTUM"),
    ({"momentum": math.nan}, "BAD_MOMENTUM"),
    ({"dampening": 1.1}, "BAD_DAMPENING"),
    ({"dampening": -0.1}, "BAD_DAMPENING"),
    ({"dampening": math.nan}, "BAD_DAMPENING"),
    ({"dampening": 0.3, "form": C["LR_INSIDE"]}, "BAD_DAMPENING"),
    ({"dampening": 0.3, "form": C["EMA"]}, "BAD_DAMPENING"),
    ({"dampening": 0.3, "flags": C["NESTEROV"]}, "BAD_DAMPENING"),
    ({"weight_decay": -0.1}, "BAD_WEIGHT_DECAY"),
    ({"weight_decay": math.nan}, "BAD_WEIGHT_DECAY"),
    ({"weight_decay": math.inf}, "BAD_WEIGHT_DECAY"),
    ({"n": -1}, "BAD_LENGTH"),
    ({"n": 2**62}, "BAD_LENGTH"),
    ({"n": 2**61}, "BAD_LENGTH"),
    ({"param": NULL}, "NULL_POINTER"),
    ({"grad": NULL}, "NULL_POINTER"),
    ({"velocity": NULL}, "NULL_POINTER"),
    ({"param": 0.5}, "MISALIGNED"),
    ({"grad": 8.25}, "MISALIGNED"),
    ({"velocity": 15.75}, "MISALIGNED"),
    ({"param": 8}, "OVERLAP"),
    ({"param": 1}, "OVERLAP"),
    ({"param": 15}, "OVERLAP"),
    ({"param": 16}, "OVERLAP"),
]
# In one dtype only.
BAD_IN = {
    "float32": [
        ({"lr": 1e-60}, "BAD_LR"),
        ({"lr": 1e60}, "BAD_LR"),
        ({"momentum": 1 - 1e-12}, "BAD_MOMENTUM"),
        ({"momentum": 1e-60}, "BAD_MOMENTUM"),
        ({"dampening": 1e-60}, "BAD_DAMPENING"),
        ({"weight_decay": 1e-60}, "BAD_WEIGHT_DECAY"),
        ({"weight_decay": 1e60}, "BAD_WEIGHT_DECAY"),
        ({"lr": 1e-30, "weight_decay": 1e-30, "flags": C["DECOUPLED_WEIGHT_DECAY"]}, "BAD_PRODUCT"),
        ({"lr": 1e30, "weight_decay": 1e30, "flags": C["DECOUPLED_WEIGHT_DECAY"]}, "BAD_PRODUCT"),
    ],
    "float64": [
        ({"lr": 1e-200, "weight_decay": 1e-200, "flags": C["DECOUPLED_WEIGHT_DECAY"]}, "BAD_PRODUCT"),
        ({"lr": 1e200, "weight_decay": 1e200, "flags": C["DECOUPLED_WEIGHT_DECAY"]}, "BAD_PRODUCT"),
    ],
}
BAD_FORMS = [({"form": number}, "BAD_FORM") for number in range(len(FORMS), len(RULES))]
QHM = C["QHM"]
# Of functions that take settings, whose rule is the form.
BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"flags": C["FIRST"]}, "BAD_FLAGS"),
    ({"flags": 2**40}, "BAD_FLAGS"),
    ({"flags": C["NESTEROV"], "form": QHM}, "BAD_FLAGS"),
    ({"dampening": 0.3, "form": QHM}, "BAD_DAMPENING"),
    ({"nu": 0.7}, "BAD_NU"),
    ({"nu": math.nan}, "BAD_NU"),
    ({"nu": 1.1, "form": QHM}, "BAD_NU"),
    ({"nu": -0.1, "form": QHM}, "BAD_NU"),
    ({"nu": math.nan, "form": QHM}, "BAD_NU"),
    ({"steps": -1}, "BAD_SETTINGS"),
    ({"steps": -(2**63)}, "BAD_SETTINGS"),
    ({"steps": 2**62}, "BAD_SETTINGS"),
]
BAD_LOOKAHEAD = [
    ({"lr": 1e-30, "momentum": 1e-30}, "float32"),
    ({"lr": 1e-200, "momentum": 1e-200, "form": C["EMA"]}, "float64"),
]


# The same for adam(). The maximum is looked at with AMSGRAD.
GOOD_ADAM: dict[str, Any] = {
    "dtype": None,
    "param": 0,
    "grad": 8,
    "velocity": 16,
    "second_moment": 24,
    "second_moment_maximum": NULL,
    "n": 8,
    "form": "corrected",
}
WITH_MAXIMUM = {"flags": C["AMSGRAD"], "second_moment_maximum": 32}
BAD_ADAM: list[tuple[dict[str, Any], str]] = [
    ({"dtype": 23}, "BAD_DTYPE"),
    ({"form": C["EMA"]}, "BAD_FORM"),
    ({"form": C["QHM"]}, "BAD_FORM"),
    ({"form": max(C[f"ADAM_{form.upper()}"] for form in FORMS_OF_ADAM) + 1}, "BAD_FORM"),
    ({"form": -1}, "BAD_FORM"),
    ({"flags": 32}, "BAD_FLAGS"),
    ({"flags": 2**40}, "BAD_FLAGS"),
    ({"flags": -1}, "BAD_FLAGS"),
    ({"flags": C["FIRST"]}, "BAD_FLAGS"),
    ({"flags": C["NESTEROV"], "form": "folded"}, "BAD_FLAGS"),
    ({"flags": C["NESTEROV"], "form": "folded_float64"}, "BAD_FLAGS"),
    ({"flags": C["NESTEROV"], "form": "uncorrected"}, "BAD_FLAGS"),
    ({**WITH_MAXIMUM, "form": "folded_float64"}, "BAD_FLAGS"),
    ({"steps": -1}, "BAD_SETTINGS"),
    ({"steps": 2**62}, "BAD_SETTINGS"),
    ({"lr": -0.1}, "BAD_LR"),
    ({"lr": math.nan}, "BAD_LR"),
    ({"lr": math.inf}, "BAD_LR"),
    ({"beta1": 1.0}, "BAD_BETA1"),
    ({"beta1": -0.1}, "BAD_BETA1"),
    ({"beta1": math.nan}, "BAD_BETA1"),
    ({"beta2": 1.0}, "BAD_BETA2"),
    ({"beta2": -0.1}, "BAD_BETA2"),
    ({"beta2": math.nan}, "BAD_BETA2"),
    ({"eps": -1e-8}, "BAD_EPS"),
    ({"eps": math.nan}, "BAD_EPS"),
    ({"eps": math.inf}, "BAD_EPS"),
    ({"weight_decay": -0.1}, "BAD_WEIGHT_DECAY"),
    ({"weight_decay": math.nan}, "BAD_WEIGHT_DECAY"),
    ({"n": -1}, "BAD_LENGTH"),
    ({"n": 2**61}, "BAD_LENGTH"),
    ({"param": NULL}, "NULL_POINTER"),
    ({"grad": NULL}, "NULL_POINTER"),
    ({"velocity": NULL}, "NULL_POINTER"),
    ({"second_moment": NULL}, "NULL_POINTER"),
    ({"flags": C["AMSGRAD"]}, "NULL_POINTER"),
    ({"second_moment_maximum": 32}, "BAD_MAXIMUM"),
    ({"param": 0.5}, "MISALIGNED"),
    ({"grad": 8.25}, "MISALIGNED"),
    ({"velocity": 15.75}, "MISALIGNED"),
    ({"second_moment": 24.5}, "MISALIGNED"),
    ({**WITH_MAXIMUM, "second_moment_maximum": 31.75}, "MISALIGNED"),
]
ARRAYS_OF_ADAM = ["param", "grad", "velocity", "second_moment", "second_moment_maximum"]
BAD_ADAM += [
    ({**WITH_MAXIMUM, one: 8 * place + shift}, "OVERLAP")
    for one in ARRAYS_OF_ADAM
    for place, other in enumerate(ARRAYS_OF_ADAM)
    for shift in (-7, 0, 7)
    if one != other and 8 * place + shift >= 0
]
BAD_ADAM_IN = {
    "float32": [
        ({"lr": 1e-60}, "BAD_LR"),
        ({"beta1": 1 - 1e-12}, "BAD_BETA1"),
        ({"beta1": 1e-60}, "BAD_BETA1"),
        ({"beta2": 1 - 1e-12}, "BAD_BETA2"),
        ({"beta2": 1e-60}, "BAD_BETA2"),
        ({"eps": 1e-60}, "BAD_EPS"),
        ({"eps": 1e60}, "BAD_EPS"),
        ({"weight_decay": 1e60}, "BAD_WEIGHT_DECAY"),
        ({"lr": 1e38}, "BAD_PRODUCT"),
        ({"lr": 1e-30, "weight_decay": 1e-30, "flags": C["DECOUPLED_WEIGHT_DECAY"]}, "BAD_PRODUCT"),
    ],
    "float64": [
        ({"lr": 1e308}, "BAD_PRODUCT"),
        ({"lr": 1e200, "weight_decay": 1e200, "flags": C["DECOUPLED_WEIGHT_DECAY"]}, "BAD_PRODUCT"),
    ],
}


def pointer(base: np.ndarray[Any, Any], element: Any) -> int:
    return 0 if element == NULL else address(base) + round(element * base.itemsize)


def called(program: Any, function: str, base: np.ndarray[Any, Any], **changed: Any) -> int:
    """The code of a call with GOOD, but for what is changed."""
    given = {**GOOD, "dtype": C[base.dtype.name.upper()], **changed}
    for name in ("param", "grad", "velocity"):
        given[name] = pointer(base, given[name])
    if "_" in function:
        del given["dtype"]
    values = [value for name, value in given.items() if function.startswith("step") or name in LOOKAHEAD]
    return int(getattr(program, function)(*values))


def called_with(
    program: Any, function: str, base: np.ndarray[Any, Any], *raw: bytes | None, **changed: Any
) -> int:
    """The same, of a function that takes settings; or with raw ones."""
    given = {**GOOD, "dtype": C[base.dtype.name.upper()], **changed}
    arrays = [pointer(base, given.pop(name)) for name in ("param", "grad", "velocity")]
    dtype, n, rule = given.pop("dtype"), given.pop("n"), given.pop("form")
    packed = raw[0] if raw else settings(program, rule=rule, **given)
    return int(getattr(program, function)(pointed(packed), dtype, *arrays, n))


def called_adam(program: Any, base: np.ndarray[Any, Any], *raw: bytes | None, **changed: Any) -> int:
    given = {**GOOD_ADAM, "dtype": C[base.dtype.name.upper()], **changed}
    arrays = [pointer(base, given.pop(name)) for name in ARRAYS_OF_ADAM]
    dtype, n = given.pop("dtype"), given.pop("n")
    packed = raw[0] if raw else adam_settings(program, **given)
    return int(program.adam(pointed(packed), dtype, *arrays, n))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_code(program: Any, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    """The code of each fault, in each function that can have it; and nothing is written."""
    base = random_like((24,), dtype, rng)
    before = base.tobytes()
    seen = {C["OK"]}
    for changed, code in BAD + BAD_FORMS + BAD_IN[dtype.name]:
        functions = ["step"]
        if "dtype" not in changed:
            functions.append(f"step_{dtype}")
        if changed.keys() <= LOOKAHEAD and code != "BAD_PRODUCT":
            functions += [name.replace("step", "lookahead") for name in functions]
        for function in functions:
            assert CODES[called(program, function, base, **changed)] == code, (function, changed)
            seen.add(C[code])
    for changed, only in BAD_LOOKAHEAD:
        if only == dtype.name:
            assert CODES[called(program, "lookahead", base, **changed)] == "BAD_PRODUCT"
            assert called(program, "lookahead", base, n=0, **{**changed, "form": C["LR_INSIDE"]}) == C["OK"]
    assert base.tobytes() == before
    assert seen == set(CODES) - {C["BAD_NU"], C["BAD_SETTINGS"], *CODES_OF_ADAM}
    assert called(program, "step", base) == C["OK"]
    assert base.tobytes() != before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_code_with_settings(newer_program: Any, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    base = random_like((24,), dtype, rng)
    before = base.tobytes()
    seen = {C["OK"]}
    small = [({"nu": 1e-60, "form": QHM}, "BAD_NU")] if dtype.name == "float32" else []
    for changed, code in BAD + BAD_SETTINGS + BAD_IN[dtype.name] + small:
        assert CODES[called_with(newer_program, "update", base, **changed)] == code, changed
        seen.add(C[code])
        if changed.get("flags") != C["NESTEROV"] and changed.get("form") != QHM:
            assert CODES[called_with(newer_program, "lookahead_with", base, **changed)] == code, changed
    for changed, only in BAD_LOOKAHEAD:
        if only == dtype.name:
            assert CODES[called_with(newer_program, "lookahead_with", base, **changed)] == "BAD_PRODUCT"
    assert base.tobytes() == before
    assert seen == set(CODES) - CODES_OF_ADAM


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_code_of_adam(newer_program: Any, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    base = random_like((48,), dtype, rng)
    before = base.tobytes()
    seen = {C["OK"]}
    for changed, code in BAD_ADAM + BAD_ADAM_IN[dtype.name]:
        assert CODES[called_adam(newer_program, base, **changed)] == code, changed
        seen.add(C[code])
    assert base.tobytes() == before
    assert seen == set(CODES) - {C["BAD_MOMENTUM"], C["BAD_DAMPENING"], C["BAD_NU"]}
    for changed in ({}, WITH_MAXIMUM):
        before = base.tobytes()
        assert called_adam(newer_program, base, **changed) == C["OK"]
        assert base.tobytes() != before


def test_settings_have_no_padding(newer_program: Any) -> None:
    values = 1, 2, 3, 0.4, 0.5, 0.6, 0.7, 0.8
    assert newer_program.settings(*values) == struct.pack("=Ii2q5d", 64, *values)
    assert newer_program.adam_settings(*values) == struct.pack("=Ii2q5d", 64, *values)


def resized(given: bytes, size: int) -> bytes:
    return size.to_bytes(4, sys.byteorder) + given[4:size].ljust(size - 4, b"\0")


@pytest.mark.parametrize(
    ("function", "form"), [("update", "EMA"), ("update", "QHM"), ("lookahead_with", "EMA")]
)
def test_settings_of_another_header(newer_program: Any, function: str, form: str) -> None:
    """What they lack is 0; what they have more must be."""
    full = settings(newer_program, rule=C[form], momentum=0.9)
    expected, base = np.arange(24.0), np.arange(24.0)
    assert called_with(newer_program, function, expected, full) == C["OK"]
    assert expected.tobytes() != base.tobytes()
    for size in (56, 72, 1024):
        base = np.arange(24.0)
        assert called_with(newer_program, function, base, resized(full, size)) == C["OK"]
        assert_bits(base, expected)
    longer = resized(full, 80)
    wrong = [longer[:place] + b"\1" + longer[place + 1 :] for place in range(64, 80)]
    wrong += [resized(full, size) for size in (4, 8, 48, 55, 57, 60, 63, 65, 68, 71)]
    for given in (None, bytes(4) + full[4:], *wrong):
        assert CODES[called_with(newer_program, function, base, given)] == "BAD_SETTINGS"
    assert_bits(base, expected)


def test_adam_settings_of_another_header(newer_program: Any) -> None:
    full = adam_settings(newer_program, form="folded")
    expected, base = np.arange(48.0), np.arange(48.0)
    assert called_adam(newer_program, expected, full) == C["OK"]
    assert expected.tobytes() != base.tobytes()
    assert called_adam(newer_program, base, resized(full, 72)) == C["OK"]
    assert_bits(base, expected)
    longer = resized(full, 72)
    wrong = [longer[:place] + b"\1" + longer[place + 1 :] for place in range(64, 72)]
    for given in (None, bytes(4) + full[4:], *wrong, *(resized(full, size) for size in (8, 56, 63, 65))):
        assert CODES[called_adam(newer_program, base, given)] == "BAD_SETTINGS"
    assert_bits(base, expected)


def test_what_is_read_twice_may_overlap(program: Any) -> None:
    base = np.ones(24)
    assert called(program, "lookahead", base, grad=16) == C["OK"]


def test_no_elements_need_no_memory(program: Any) -> None:
    base = np.ones(24)
    for function in ("step", "lookahead"):
        assert called(program, function, base, n=0, param=NULL, grad=NULL, velocity=NULL) == C["OK"]
        assert CODES[called(program, function, base, n=0, lr=-1.0)] == "BAD_LR"


def test_adam_of_no_elements_needs_no_memory(newer_program: Any) -> None:
    base, pointers = np.ones(48), dict.fromkeys(ARRAYS_OF_ADAM, NULL)
    for changed in ({}, {"flags": C["AMSGRAD"]}, {"second_moment_maximum": 32}):
        assert called_adam(newer_program, base, n=0, **{**pointers, **changed}) == C["OK"]
    assert CODES[called_adam(newer_program, base, n=0, beta2=1.0)] == "BAD_BETA2"
    assert (base == 1).all()


VALUES = {
    "lr": [0.0, 0.1, -0.0, 1e-40, 1e-46, 1e38, 1e39, 5e-324, 1.7e308],
    "momentum": [0.0, 0.9, 1 - 2**-25, 1 - 2**-26, 1 - 2**-53, 1e-46],
    "dampening": [0.0, 0.3, 1.0, 1e-46],
    "weight_decay": [0.0, 0.01, 1e-20, 1e38, 1e39, 1e-46, 5e-324],
    "nu": [0.0, 0.7, 1.0, 1 + 2**-52, 1e-46],
    "beta1": [0.0, 0.9, 1 - 2**-25, 1 - 2**-26, 1 - 2**-53, 1e-46],
    "beta2": [0.0, 0.999, 1 - 2**-25, 1 - 2**-26, 1 - 2**-53, 1e-46],
    "eps": [0.0, 1e-8, 1e38, 1e39, 1e-46, 5e-324],
}
OF_MOMENTUM = ("lr", "momentum", "dampening", "weight_decay")


def pairs(names: Iterable[str], flags: Sequence[str]) -> Iterator[tuple[dict[str, float], dict[str, bool]]]:
    """All pairs of values of two of the names, with all values of the flags."""
    for one, other in itertools.combinations(names, 2):
        for x, y, *on in itertools.product(VALUES[one], VALUES[other], *[[False, True]] * len(flags)):
            yield {one: x, other: y}, dict(zip(flags, on, strict=True))


def accepts(dtype: np.dtype[Any], kind: dict[str, Any], values: dict[str, Any]) -> bool:
    """Whether a State makes a step whose hyperparameters are set to these."""
    param = np.ones(24, dtype)
    state = make(fm, param, lr=0.1, **kind)
    try:
        for name, value in values.items():
            setattr(state, name, value)
        fm.step(param, np.ones(24, dtype), state)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_hyperparameters_are_refused_as_in_step(program: Any, form: str, dtype: np.dtype[Any]) -> None:
    for numbers, flags in pairs(OF_MOMENTUM, ["nesterov", "decoupled_weight_decay"]):
        code = called(
            program, "step", np.ones(24, dtype), form=C[form.upper()], flags=flags_of(**flags), **numbers
        )
        accepted = accepts(dtype, {"form": form}, {**flags, **numbers})
        assert (code == C["OK"]) == accepted, (numbers, flags, CODES[code])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", range(len(RULES)), ids=RULES)
def test_settings_are_refused_as_in_step(newer_program: Any, rule: int, dtype: np.dtype[Any]) -> None:
    row = ROWS[rule]
    kind = {key: row[key] for key in ("rule", "form") if row[key]}
    taken = [name for name in NUMBERS if name in row["takes"]]
    others = {name: row["defaults"].get(name, 0.1) for name in taken}
    for numbers, flags in pairs(taken, [name for name in FLAGS if name in row["takes"]]):
        code = called_with(newer_program, "update", np.ones(24, dtype), form=rule, flags=flags_of(**flags),
                           **{**others, **numbers})  # fmt: skip
        accepted = accepts(dtype, kind, {**flags, **numbers})
        assert (code == C["OK"]) == accepted, (numbers, flags, CODES[code])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS_OF_ADAM)
def test_adam_is_refused_as_in_step(newer_program: Any, form: str, dtype: np.dtype[Any]) -> None:
    takes = next(row["takes"] for row in _core.rules if row["rule"] == "adam" and row["form"] == form)
    flags = [name for name in FLAGS_OF_ADAM if name in takes and not _core.settings[name]["fixed"]]
    for numbers, on in pairs(NUMBERS_OF_ADAM, flags):
        code = called_adam(newer_program, np.ones(48, dtype), form=form, flags=flags_of(**on), **numbers)
        accepted = accepts(dtype, {"rule": "adam", "form": form}, {**on, **numbers})
        assert (code == C["OK"]) == accepted, (numbers, on, CODES[code])


def test_messages(program: Any) -> None:
    """Each code has one, and those about a hyperparameter say what the exceptions of a State say."""
    texts = [program.message(code) for code in sorted(CODES)]
    unknown = program.message(max(CODES) + 1)
    assert len({*texts, unknown}) == len(CODES) + 1
    assert unknown == program.message(-1) == program.message(2**31 - 1) == program.message(-(2**31))
    adam = next(row for row in _core.rules if row["rule"] == "adam")
    for row, name in itertools.product([*ROWS, adam], {*NUMBERS, *NUMBERS_OF_ADAM}):
        if name not in row["takes"]:
            continue
        with pytest.raises(ValueError, match="must") as refused:
            make(fm, np.ones(1), rule=row["rule"], **{"lr": 0.1, name: -1.0})
        requirement = str(refused.value).removesuffix(", not -1.0")
        assert requirement != str(refused.value)
        assert program.message(C[f"BAD_{name.upper()}"]).startswith(requirement)


# ---- the header and the declarations ----


def test_rows_of_the_tables_have_their_numbers() -> None:
    assert _core.rules[: len(ROWS)] == ROWS
    assert [C[rule.upper()] for rule in RULES] == list(range(len(RULES)))
    assert [_core.rules[C[f"ADAM_{form.upper()}"]]["form"] for form in FORMS_OF_ADAM] == FORMS_OF_ADAM
    numbers = {f"BAD_{name.upper()}" for name in (*NUMBERS, *NUMBERS_OF_ADAM)}
    assert numbers | {name.upper() for name in FLAGS_OF_ADAM} <= C.keys()
    assert {C[dtype.name.upper()] for dtype in DTYPES} == {dtype.num for dtype in DTYPES}


STRUCTS = {"fast_momentum_settings": "Settings", "fast_momentum_adam_settings": "AdamSettings"}


def test_pxd_agrees_with_the_header() -> None:
    assert {name: int(value) for name, value in re.findall(r"^    (\w+) = (\d+)$", PXD, re.MULTILINE)} == C

    def declared(pattern: str, text: str) -> dict[str, str]:
        plain = re.sub(r"\s*\*\s*", "*", re.sub(r"\s+", " ", text))
        for in_c, in_cython in STRUCTS.items():
            plain = plain.replace(in_c, in_cython)
        return {name: result.strip() + given for result, name, given in re.findall(pattern, plain)}

    in_pxd = declared(r"cdef ((?:int |const char\*))(\w+)(\([^)]*\)) noexcept nogil", PXD)
    in_header = declared(r"((?:int |const char\*))\(\*(\w+)\)(\([^)]*\));", HEADER)
    assert len(in_pxd) == PXD.count("noexcept nogil")
    assert in_pxd == in_header

    def members(pattern: str, text: str) -> list[str]:
        body = re.sub(r"/\*.*?\*/", "", re.search(pattern, text, re.DOTALL)[1])
        return [" ".join(line.strip(" ;").split()) for line in body.splitlines() if line.strip()]

    for in_c, in_cython in STRUCTS.items():
        assert members(rf"cdef struct {in_cython}:\n(.*?)\n\n", PXD) == members(
            rf"typedef struct \{{([^}}]*)\}} {in_c};", HEADER
        )


def test_numbers_that_are_compiled_already_stay() -> None:
    old = constants((ABI_1 / "fast_momentum.h").read_text())
    assert old
    assert old.items() <= C.items()


def test_capsules() -> None:
    """Programs of ABI 1 look for a version, a size and seven functions; in ABI 2 the size comes first."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    functions = [get(capsule, name(capsule)) for capsule in _core._pyx_capi.values()]
    word = ctypes.sizeof(ctypes.c_void_p)
    for capsule, count, head in (("_C_API", 7, (1, 8 + 7 * word)), ("_C_API_2", 10, (8 + 10 * word, 2))):
        table = get(getattr(_core, capsule), f"fast_momentum._core.{capsule}".encode())
        assert struct.unpack("=II", ctypes.string_at(table, 8)) == head
        assert list((ctypes.c_void_p * count).from_address(table + 8)) == functions[:count]


def test_get_include() -> None:
    assert [path.name for path in Path(get_include()).iterdir()] == ["fast_momentum.h"]


@needs_compiler
@needs_unix
@pytest.mark.parametrize("language", [["-x", "c", "-std=c99"], ["-x", "c++", "-std=c++11"]], ids=["C", "C++"])
@pytest.mark.parametrize("with_python", [False, True], ids=["alone", "with Python"])
def test_header_compiles_without_a_warning(language: list[str], with_python: bool, tmp_path: Path) -> None:
    source = tmp_path / "header"
    source.write_text("#include <Python.h>\n" * with_python + "#include <fast_momentum.h>\n")
    strict = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only"]
    subprocess.run([COMPILER, *language, *strict, "-isystem", sysconfig.get_path("include"), "-I", get_include(), source],
                   check=True)  # fmt: skip


# ---- the page ----


@needs_compiler
def test_the_programs_of_the_page(tmp_path: Path) -> None:
    """Its files, built with its command, print what it says."""
    pytest.importorskip("Cython")
    files = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in files] == ["fit.pyx", "one_step.c", "train.c", "setup.py", "use.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    assert "\npython setup.py build_ext --inplace\n" in PAGE
    build_extensions(tmp_path)
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert printed == [done.stdout]


def test_codes_of_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)`", PAGE, re.MULTILINE)
    assert {int(code): name for code, name in rows} == CODES


# ---- what does not fit is said at import ----


@needs_compiler
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("_C_API_2", "_C_API_3",
         "^fast_momentum must have ABI version 2, for which this module was compiled; upgrade it, or compile this "
         "module again$"),
        ("} fast_momentum_api;", "void (*another)(void);\n} fast_momentum_api;",
         "^fast_momentum must not be older than the one whose header this module was compiled with; upgrade it$"),
    ],
    ids=["ABI", "older"],
)  # fmt: skip
def test_another_header(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert HEADER.count(old) == 1
    include = tmp_path / "include"
    include.mkdir()
    (include / "fast_momentum.h").write_text(HEADER.replace(old, new))
    built = build(tmp_path, TESTS / "consumer.c", "consumer_c", include)
    with pytest.raises(ImportError, match=message):
        load(built)


@needs_compiler
def test_another_signature(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    declarations = tmp_path / "fast_momentum"  # found before those of the package
    declarations.mkdir()
    (declarations / "__init__.pxd").touch()
    (declarations / "cython_momentum.pxd").write_text("cdef int message(double code) noexcept nogil\n")
    program = tmp_path / "program.pyx"
    program.write_text("from fast_momentum.cython_momentum cimport message\n\ndef call():\n    message(1)\n")
    with pytest.raises(
        TypeError, match=r"wrong signature \(expected int \(double\), got char const \*\(int\)\)"
    ):
        load(build(tmp_path, program, "wrong_signature"))
