"""fast_momentum.mpi on 1, 2, 3, 4 and 7 ranks of this machine: what they do is in mpi_cases.py.

A hang is a failure: each case has its time there, and each program has its own here.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MPIEXEC = os.environ.get("FAST_MOMENTUM_MPIEXEC") or shutil.which(
    "mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)
if MPIEXEC is None or importlib.util.find_spec("mpi4py") is None:
    pytest.skip("needs mpi4py and an MPI: pip install mpi4py mpich", allow_module_level=True)

pytestmark = pytest.mark.python_alone  # what is compiled is tested without ranks
CASES = Path(__file__).with_name("mpi_cases.py")
EXAMPLES = Path(__file__).parents[1] / "examples" / "mpi"
SECONDS = 500


def run(n_ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of so many ranks, which may be more than there are processors."""
    assert MPIEXEC is not None
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # fmt: skip
    return subprocess.run(
        [*MPIEXEC.split(), "-n", str(n_ranks), sys.executable, *arguments],
        capture_output=True, text=True, check=False, timeout=SECONDS, env=environment,
    )  # fmt: skip


def names() -> list[str]:
    """Of the cases, which only a program with mpi4py may import."""
    lines = CASES.read_text().splitlines()
    return [lines[i + 1][4:].split("(")[0] for i, line in enumerate(lines) if line == "@case"]


@functools.cache
def outcome(n_ranks: int) -> tuple[set[str], str]:
    """The cases that have passed, all in one program; and what it has printed."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(n_ranks, str(CASES), folder)
    passed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("passed ")}
    return passed, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 7])
def test_case(n_ranks: int, name: str) -> None:
    passed, printed = outcome(n_ranks)
    assert name in passed, printed


def test_any_model_on_three_ranks(tmp_path: Path) -> None:
    done = run(3, str(CASES), str(tmp_path), "any_model")
    assert "passed any_model" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("when", ["killed_in_a_step", "killed_while_saving"])
def test_a_rank_that_dies(tmp_path: Path, when: str) -> None:
    """MPI ends the others; the last checkpoint is whole, and is restored on fewer ranks."""
    done = run(3, str(CASES), str(tmp_path), when)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    done = run(2, str(CASES), str(tmp_path), "restored")
    assert "passed restored" in done.stdout, done.stdout + done.stderr


DOCTEST = """
import doctest
from fast_momentum import mpi
for name in mpi.__all__:
    for test in doctest.DocTestFinder(recurse=False).find(getattr(mpi, name), name, globs={}):
        assert test.examples or name == "State", name
        assert doctest.DocTestRunner().run(test).failed == 0, name
print("passed")
"""


def test_examples_of_docstrings() -> None:
    done = run(1, "-c", DOCTEST)
    assert "passed" in done.stdout, done.stdout + done.stderr


def test_diloco() -> None:
    """Four ranks come at least as far as one machine in as many steps with all of their batches."""
    pytest.importorskip("sklearn")
    done = run(4, str(EXAMPLES / "diloco.py"))
    losses = [float(loss) for loss in re.findall(r": loss ([\d.]+),", done.stdout)]
    assert len(losses) == 2, done.stdout + done.stderr
    assert losses[0] <= losses[1]
    assert "Messages: 20 in place of 400" in done.stdout


def test_evolution_strategy() -> None:
    done = run(4, str(EXAMPLES / "evolution.py"))
    found = re.search(r"from 1\.\d+ to ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < 0.001
