"""What fuzzers run for long, for a few seconds and always alike: the programs of fuzz_programs.py, the inputs of
fuzz_decoders.py."""

from __future__ import annotations

import random
from pathlib import Path

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

import fuzz_decoders
from fuzz_programs import Programs

CORPUS = sorted((Path(__file__).parent / "data" / "corpus").iterdir())


def test_random_programs() -> None:
    few = hypothesis.settings(max_examples=20, stateful_step_count=20, derandomize=True, database=None)
    run_state_machine_as_test(Programs, settings=few)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_inputs_that_were_found(path: Path) -> None:
    if "safetensors" in path.name:
        pytest.importorskip("safetensors")
    fuzz_decoders.read(path.read_bytes())


def test_inputs_to_begin_with() -> None:
    """If they were not good, a fuzzer would look at refusals alone."""
    pytest.importorskip("safetensors")
    for number, seed in enumerate(fuzz_decoders.seeds()):
        assert fuzz_decoders.read(seed), number


def test_changed_inputs() -> None:
    pytest.importorskip("safetensors")
    rng, seeds = random.Random(0), list(fuzz_decoders.seeds())
    for _ in range(200):
        data = rng.choice(seeds)
        for _ in range(rng.randint(1, 3)):
            data = fuzz_decoders.mutated(data, rng) or data
        fuzz_decoders.read(data)
