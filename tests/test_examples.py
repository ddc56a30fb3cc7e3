"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import digits_example

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RULES = sorted({row["rule"] for row in _core.rules} - {"momentum"})  # which is the first case


@pytest.mark.skipif(
    "FAST_MOMENTUM_SANITIZED" in os.environ, reason="`nox -s examples` runs it, ten times as fast"
)
@pytest.mark.parametrize(
    ("options", "least"),
    [
        (("--epochs", "15"), 96),
        *((("--rule", rule, "--epochs", "3"), 70) for rule in RULES),
        (("--rule", "adam", "--lr", "0.003", "--epochs", "2"), 90),
    ],
    ids=str,
)
def test_train_digits(options: tuple[str, ...], least: float, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, EXAMPLES / "train_digits.py", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^fast_momentum .* ([\d.]+)%$", done.stdout, re.MULTILINE)
    assert found
    assert float(found[1]) >= least
    assert "Final parameters bit-identical: yes" in done.stdout
    number = r"\d+\.\d\d"
    took = rf"^NumPy in place takes {number} .* times as long to train, and {number} .* times for its steps$"
    compared = re.search(took, done.stdout, re.MULTILINE)
    assert bool(compared) == ("--rule" not in options), "no other rule has a comparison that is fair"
    assert done.stdout.count("ms") == (3 if compared else 1)
    picture = tmp_path / "digits_loss.png"
    assert picture.exists() or "(no picture: matplotlib is not installed)" in done.stdout


@pytest.mark.skipif(
    "FAST_MOMENTUM_SANITIZED" in os.environ, reason="`nox -s examples` runs it, ten times as fast"
)
def test_train_digits_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    command = [
        sys.executable,
        EXAMPLES / "train_digits.py",
        "--rule",
        "adam",
        "--epochs",
        "8",
        "--resume",
        "run",
    ]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 250
    while not list(tmp_path.glob("run/checkpoint-*.npz")) and time.monotonic() < end:
        time.sleep(0.01)
    first.kill()
    first.wait()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^fast_momentum: resumed after epoch (\d), step \d+$", done.stdout, re.MULTILINE)
    assert found
    assert 1 <= int(found[1]) < 8
    assert (
        "Final parameters bit-identical: yes" in done.stdout
    )  # to those of the reference, which was not killed


def test_train_digits_refuses_a_rule_that_there_is_not(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, EXAMPLES / "train_digits.py", "--rule", "adma"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 2
    for rule in ("momentum", *RULES):
        assert rule in done.stderr


@pytest.mark.skipif("FAST_MOMENTUM_SANITIZED" in os.environ, reason="90 trainings, which are many")
def test_table_of_the_tutorial() -> None:
    """Held-out accuracies, which hang on the roundings of the BLAS."""
    pytest.importorskip("sklearn")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    example, (x, x_test, y, y_test) = digits_example()

    def accuracy(seed: int, make: Any, **options: Any) -> float:
        rng = np.random.default_rng(seed)
        layers = example.new_layers(rng)
        state = make(layers, **options)
        for _ in range(10):
            for batch in np.array_split(rng.permutation(len(x)), len(x) // example.BATCH):
                fm.step(layers, example.loss_and_gradient(layers, x[batch], y[batch])[1], state)
        return 100 * float(example.accuracy(layers, x_test, y_test))

    page = (EXAMPLES.parent / "docs" / "tutorial.md").read_text()
    number, cell = r"(\d\.\d+)", r"(\d\d|below 90)"
    pattern = rf"^\| {number} \| {cell} \| {cell} \| {number} \| {cell} \|$"
    rows = re.findall(pattern, page, re.MULTILINE)
    assert len(rows) == 6
    with threadpoolctl.threadpool_limits(1), np.errstate(divide="ignore"):
        for lr, plain, nesterov, adam_lr, adam in rows:
            for printed, make, options in [
                (plain, fm.init, {"lr": float(lr)}),
                (nesterov, fm.init, {"lr": float(lr), "nesterov": True}),
                (adam, fm.adam, {"lr": float(adam_lr)}),
            ]:
                mean = np.mean([accuracy(seed, make, **options) for seed in range(5)])
                if printed == "below 90":
                    assert mean < 90
                else:
                    assert mean == pytest.approx(float(printed), abs=2.5)
