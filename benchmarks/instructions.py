"""Count the instructions of a step: a figure that does not depend on what else the machine does.

    python benchmarks/instructions.py            compare with instructions.json
    python benchmarks/instructions.py --renew    write the figures of this build there

Counted by valgrind's callgrind, in two runs that differ in the number of calls. The figures hold for one compiler and
one Python; where either is another, nothing is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fast_momentum as fm

BUDGET = Path(__file__).with_suffix(".json")
TOLERANCE = 0.02

# The problem, and how many calls the longer run makes more.
CASES = {
    "one array of 100": ("one_array(100)", 20_000),
    "list of 1000 arrays of 32": ("many_arrays([(32,)] * 1000)", 1000),
    "dict of 1000 arrays of 32": ("many_arrays([(32,)] * 1000, 'dict')", 1000),
}

PROGRAM = """
import fast_momentum as fm
from fast_momentum._bench.problems import many_arrays, one_array

def run(problem, calls):
    step, params, grads, state = fm.step, problem.params, problem.grads, problem.state
    for _ in range(calls):
        step(params, grads, state)

run({problem}, {calls})
"""


def counted(problem: str, calls: int) -> int:
    program = PROGRAM.format(problem=problem, calls=calls)
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        sys.executable,
        "-c",
        program,
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}  # whose threads spin
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = re.search(r"Collected : (\d+)", result.stderr)
    assert found, result.stderr
    return int(found[1])


def instructions_of_a_call(problem: str, calls: int) -> int:
    few = 10
    return round((counted(problem, few + calls) - counted(problem, few)) / calls)


def build() -> str:
    config, python = fm.show_config("dicts"), ".".join(platform.python_version_tuple()[:2])
    return f"{config['compiler']}, {config['in use']}, Python {python}, {platform.machine()}"


def compared(found: dict[str, int], budget: dict[str, int]) -> bool:
    """Print the figures; whether each is within the tolerance, above or below."""
    good = True
    for case, instructions in found.items():
        ratio = instructions / budget[case]
        within = abs(ratio - 1) <= TOLERANCE
        good = good and within
        print(
            f"{case}: {instructions:,} instructions, {ratio:.3f} of the budget{'' if within else ': FAILED'}"
        )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--renew", action="store_true", help="write the figures of this build into instructions.json"
    )
    renew = parser.parse_args().renew
    if not shutil.which("valgrind"):
        parser.error("valgrind must be installed; on Debian: apt-get install valgrind")
    budget = json.loads(BUDGET.read_text())
    if not renew and budget["build"] != build():
        print(f"nothing compared: the budget is of {budget['build']}, this is {build()}")
        return 0
    found = {case: instructions_of_a_call(*arguments) for case, arguments in CASES.items()}
    if renew:
        BUDGET.write_text(json.dumps({"build": build(), "instructions": found}, indent=2) + "\n")
        print(BUDGET.read_text())
        return 0
    if compared(found, budget["instructions"]):
        return 0
    print(f"More than {TOLERANCE:.0%} off. If that is meant: python benchmarks/instructions.py --renew")
    return 1


if __name__ == "__main__":
    sys.exit(main())
