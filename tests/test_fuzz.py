"""fuzz_programs.py for a few seconds, always with the same programs; `nox -s soak` runs it for longer, with others."""

from __future__ import annotations

import hypothesis
from hypothesis.stateful import run_state_machine_as_test

from fuzz_programs import Programs


def test_random_programs() -> None:
    few = hypothesis.settings(max_examples=20, stateful_step_count=20, derandomize=True, database=None)
    run_state_machine_as_test(Programs, settings=few)
