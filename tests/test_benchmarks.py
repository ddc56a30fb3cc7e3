"""What the benchmarks in the repository count and decide by themselves; `nox -s bench` runs them."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
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
