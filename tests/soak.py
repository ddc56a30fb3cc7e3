"""Random programs for as long as is asked for, in rounds, with an eye on memory and open files.

What may follow `python tests/soak.py`, or `nox -s soak --`::

    120                     so many seconds in place of an hour, with the seed of the day
    120 --seed 20261201     with another seed
    --round 20261201.17     one round alone: the last one that a failing run has printed
"""

from __future__ import annotations

import argparse
import datetime as dt
import faulthandler
import gc
import itertools
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import hypothesis
from hypothesis.stateful import run_state_machine_as_test

from fuzz_programs import Programs

ROUND = hypothesis.settings(
    max_examples=50,
    stateful_step_count=30,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)
# What Hypothesis and NumPy keep for later grows in the first rounds; a leak of a state in each program would be more.
WARM_UP, MOST_GROWTH = 10, 64 << 20


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_round(seed: int, number: int) -> None:
    hypothesis.seed(seed * 1_000_003 + number)(Programs)
    run_state_machine_as_test(Programs, settings=ROUND)
    gc.collect()


def soak(seconds: float, seed: int) -> None:
    begin = time.monotonic()
    files = memory = 0
    for number in itertools.count():
        print(f"round {seed}.{number}", end="", flush=True)
        run_round(seed, number)
        if number <= WARM_UP:
            files, memory = open_files(), resident_bytes()
        growth = resident_bytes() - memory
        passed = time.monotonic() - begin
        print(
            f": {next(Programs.operations)} operations in {passed:.0f} s, {growth >> 10} KiB more, {open_files()} open files"
        )
        if open_files() > files or growth > MOST_GROWTH:
            sys.exit("open files or memory have grown")
        if passed > seconds:
            return


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", type=float, nargs="?", default=3600)
    parser.add_argument("--seed", type=int, default=int(f"{dt.datetime.now(dt.UTC):%Y%m%d}"))
    parser.add_argument("--round", help="the seed and the number of a round, with a dot between them")
    given = parser.parse_args()
    warnings.simplefilter("error")
    faulthandler.enable()
    if Path("/dev/shm").is_dir():
        tempfile.tempdir = "/dev/shm"  # save() flushes to the disk, which would take most of the time
    if given.round:
        run_round(*map(int, given.round.split(".")))
    else:
        print(f"nox -s soak -- {given.seconds:g} --seed {given.seed}", flush=True)
        soak(given.seconds, given.seed)


if __name__ == "__main__":
    main()
