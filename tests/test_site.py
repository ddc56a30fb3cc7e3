"""The movable picture of the site computes what `fast_momentum.theory` does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import theory

pytestmark = pytest.mark.python_alone

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "_static" / "ravine.js"
L_MIN, L_MAX = 1.0, 25.0

rng = np.random.default_rng(0)
MOMENTA = [0.0, *rng.uniform(0, 1, 20), 0.99]
LRS = [*10 ** rng.uniform(-3, -0.6, 30)]
BEST = theory.optimal(L_MIN, L_MAX)


def on_the_borders() -> list[tuple[float, float, float]]:
    """Curvature, lr, momentum: on each border between two regimes, and a little to either side."""
    cases = []
    for curvature in (L_MIN, L_MAX):
        for momentum in MOMENTA:
            for border in ((1 - momentum**0.5) ** 2, (1 + momentum**0.5) ** 2, 2 * (1 + momentum)):
                cases += [
                    (curvature, border / curvature * share, momentum) for share in (1 - 1e-9, 1, 1 + 1e-9)
                ]
    return cases


GRID = [(curvature, lr, momentum) for curvature in (L_MIN, L_MAX) for lr in LRS for momentum in MOMENTA]
GRID += on_the_borders()


@pytest.fixture(scope="module")
def script() -> Any:
    """What the script computes for each name: of a list of arguments a list."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")

    def call(name: str, cases: list[Any]) -> Any:
        program = (
            f"const script = require({json.dumps(str(SCRIPT))});"
            f"const cases = JSON.parse(require('fs').readFileSync(0));"
            f"console.log(JSON.stringify(cases.map((case_) => script.{name}(...case_))));"
        )
        done = subprocess.run(
            [node, "-e", program], input=json.dumps(cases), capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return call


def test_regimes_and_rates(script: Any) -> None:
    found = script("direction", GRID)
    curvature, lr, momentum = np.array(GRID).T
    regimes = theory.regime(curvature, lr=lr, momentum=momentum)
    assert [one["regime"] for one in found] == list(regimes)
    assert set(regimes) == {"overdamped", "critical", "underdamped", "alternating", "divergent"}
    rates = theory.rate(curvature, lr=lr, momentum=momentum)
    np.testing.assert_allclose([one["rate"] for one in found], rates, rtol=1e-12)


def test_limits_and_the_best(script: Any) -> None:
    limits = theory.stability_limit(L_MAX, momentum=MOMENTA)
    np.testing.assert_allclose(script("limit", [[m] for m in MOMENTA]), limits, rtol=1e-15)
    critical = theory.critical_momentum(L_MIN, lr=LRS)
    np.testing.assert_allclose(script("critical", [[lr] for lr in LRS]), critical, rtol=1e-14)
    (best,) = script("best", [[]])
    assert best == pytest.approx({"lr": BEST.lr, "momentum": BEST.momentum}, rel=1e-14)


def test_paths_are_those_of_steps(script: Any) -> None:
    cases = [(0.03, 0.9), (BEST.lr, BEST.momentum), (2 / 26, 0.0)]
    for (lr, momentum), path in zip(cases, script("path", cases), strict=True):
        p = np.array([9.0, 1.0])
        state = fm.init(p, lr=lr, momentum=momentum)
        for point in path[1:]:
            fm.step(p, np.array([L_MIN, L_MAX]) * p, state)
            assert point == p.tolist()
