"""What the benchmarks in the repository count and decide by themselves; `nox -s bench` runs them."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import reference
from fast_momentum._bench.problems import LR, MOMENTUM

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("instructions", "good"), [(1000, True), (1019, True), (981, True), (1021, False), (979, False)]
)
def test_budget_is_kept_from_both_sides(
    instructions: int, good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loaded("instructions").compared({"a": 1000, "b": instructions}, {"a": 1000, "b": 1000}) == good
    assert capsys.readouterr().out.count("FAILED") == (not good)


def test_every_case_has_a_budget() -> None:
    budget = json.loads((BENCHMARKS / "instructions.json").read_text())
    assert list(budget["instructions"]) == list(loaded("instructions").CASES)


@pytest.mark.parametrize(
    ("model", "arrays", "elements"),
    [("ResNet-50", 161, 25_557_032), ("GPT-2", 148, 124_439_808), ("perceptron", 6, 85_002)],
)
def test_models_have_as_many_parameters_as_published(model: str, arrays: int, elements: int) -> None:
    shapes = loaded("models").MODELS[model]
    assert len(shapes) == arrays
    assert sum(map(math.prod, shapes)) == elements


passes = loaded("passes")


def contenders_of(*cases: str) -> list[tuple[str, str]]:
    return [(case, name) for case in cases for name in passes.CASES[case] if name != passes.PLAIN]


@pytest.mark.parametrize(("case", "name"), contenders_of(*(case for case in passes.CASES if case != "norm")))
def test_contenders_make_the_same_update(case: str, name: str) -> None:
    problem = passes.problem_of(case, 1000)
    problem.params[...] = 0  # then a step is all that is left
    problem.grads[...] = np.random.default_rng(0).normal(0, 1 / LR, problem.elements)
    options = passes.SETTINGS.get(case, {})
    if case == "storage":
        options = {"compensated": True} if name == "compensated" else {"velocity_dtype": name.split()[-1]}
    expected, grads = np.ones_like(problem.params), problem.grads.copy()
    state = reference.init(expected, lr=LR, momentum=MOMENTUM, **options)
    expected[...] = 0
    if "gradient" in name:
        grads = grads.astype(pytest.importorskip("ml_dtypes").bfloat16)
    calls = passes.prepared(problem, [name], passes.CASES[case])
    if not calls:
        pytest.skip("PyTorch is not installed")
    # What scales the gradients in place, or zeroes them, has none to go on with.
    for _ in range(3 if case in ("average", "storage") else 1):
        reference.step(expected, grads, state, **passes.ARGUMENTS.get(case, {}))
        calls[name]()
    np.testing.assert_allclose(problem.params, expected, rtol=1e-6)
    if case == "average":
        np.testing.assert_allclose(problem.state.average, state.average, rtol=1e-6)
    assert problem.grads.any() == (case != "zero")


@pytest.mark.parametrize("name", passes.CASES["norm"])
def test_contenders_take_the_same_norm(name: str) -> None:
    problem = passes.problem_of("norm", 1000)
    problem.grads[...] = np.arange(1000)
    calls = passes.prepared(problem, [name], passes.CASES["norm"])
    if not calls:
        pytest.skip("PyTorch is not installed")
    assert calls[name]() == pytest.approx(math.sqrt(999 * 1000 * 1999 / 6), rel=1e-6)


family = loaded("family")


@pytest.mark.parametrize("name", [name for name in family.ADAM if name != family.OURS])
def test_contenders_make_the_same_step_of_adam(name: str) -> None:
    problem = family.adam_problem(1000)
    problem.grads[...] = np.random.default_rng(0).normal(size=1000)
    expected = problem.params.copy()
    state = reference.adam(expected, lr=LR)
    calls = passes.prepared(problem, [name], family.ADAM)
    if not calls:
        pytest.skip(f"{name} is not installed")
    for _ in range(3):
        reference.step(expected, problem.grads, state)
        calls[name]()
    np.testing.assert_allclose(problem.params, expected, rtol=0, atol=4e-7)
    np.testing.assert_allclose(problem.state.second_moment, state.second_moment, rtol=1e-5)


tables = loaded("tables")


@pytest.mark.parametrize("name", [name for name in tables.CONTENDERS if name != tables.ADAM])
def test_contenders_make_the_same_step_of_rows(name: str) -> None:
    """The dense one, too, as long as velocities are zero."""
    problem = tables.Problem(tables.Case(50, 3, 60))
    expected = problem.table.copy()
    state = reference.init(expected, lr=LR, momentum=MOMENTUM)
    call = tables.CONTENDERS[name](problem)
    for _ in range(1 if name == tables.DENSE else 3):
        reference.step(expected, fm.Rows(problem.indices, problem.values), state)
        call()
    np.testing.assert_array_equal(problem.table, expected)
    np.testing.assert_array_equal(problem.state.velocity, state.velocity)


# ---- minimizers ----

SMALL = {"logistic": (60, 5), "denoising": (16,), "sparse": (20, 30), "batches": (400, 5, 100)}


@pytest.mark.parametrize("name", ["rosenbrock", *SMALL])
def test_minimizers_get_gradients(name: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    problem = getattr(loaded("minimizers"), name)(*SMALL.get(name, ()))
    point = problem.start + np.random.default_rng(0).uniform(0.1, 0.2, problem.start.shape)
    value, grad = problem.fun(point)
    assert value > (problem.minimum or -math.inf)
    wanted = optimize.approx_fprime(point, lambda x: problem.fun(x)[0], 1e-7)
    np.testing.assert_allclose(grad, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", SMALL)
def test_minimizers_reach_the_minimum(name: str) -> None:
    pytest.importorskip("scipy.optimize")
    module = loaded("minimizers")
    problem = getattr(module, name)(*SMALL[name])
    problem.gap = max(problem.gap, 0.05 if name == "batches" else 0)
    found = module.raced(problem, 1)
    assert list(found) == list(problem.contenders)
    assert all(seconds > 0 and evaluations > 0 for seconds, evaluations in found.values())


def test_minimizers_table_is_of_these_problems() -> None:
    pytest.importorskip("scipy.optimize")
    module = loaded("minimizers")
    rows = module.PAGE.read_text().split(module.BEGIN)[1].split(module.END)[0].splitlines()
    measured = [row.split(" | ")[0].removeprefix("| ") for row in rows if row.startswith("| ")]
    assert list(dict.fromkeys(measured[1:])) == [
        "Rosenbrock's function", "logistic regression", "denoising an image", "sparse regression, l1", "large data, batches",
    ]  # fmt: skip


# ---- the report ----


def test_every_section_of_the_report_answers_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(BENCHMARKS)
    report = loaded("report")
    asked = [name for names in report.QUESTIONS.values() for name in names]
    assert sorted(asked) == sorted(report.SECTIONS)
    section = report.Section(["## A title", "", "Words.", ""])
    section.table(["a", "b"], [["1", "2"], ["3", "4"]])
    empty = report.Section()
    page = report.arranged(empty, dict.fromkeys(asked, section), empty, empty, ["made"]).splitlines()
    assert [line[3:] for line in page if line.startswith("## ")][: len(report.QUESTIONS)] == list(
        report.QUESTIONS
    )
    assert page.count("### A title") == len(asked)
    table = page.index("| a | b |")
    assert page[table - 3 : table] == ["<details>", "<summary>Table of 2 rows</summary>", ""]
    assert page[table + 4 : table + 6] == ["", "</details>"]
