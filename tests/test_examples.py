"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.skipif(
    "FAST_MOMENTUM_SANITIZED" in os.environ, reason="`nox -s examples` runs it, ten times as fast"
)
def test_train_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, EXAMPLES / "train_digits.py", "--epochs", "15"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^Held-out accuracy: ([\d.]+)%$", done.stdout, re.MULTILINE)
    assert found
    assert float(found[1]) >= 96
    assert "Final parameters bit-identical: yes" in done.stdout
    assert re.search(
        r"All steps took [\d.]+ s with fast_momentum and [\d.]+ s with the NumPy reference", done.stdout
    )
    picture = tmp_path / "digits_loss.png"
    assert picture.exists() or "(no picture: matplotlib is not installed)" in done.stdout
