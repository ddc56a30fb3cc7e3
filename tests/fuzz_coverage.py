"""Runs fuzz_decoders.py with atheris, which looks for inputs that reach new code: `nox -s fuzz`.

Arguments are those of libFuzzer: folders of inputs, the first of which gets new ones, and flags such as -max_total_time.
"""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fast_momentum"]):
    import fuzz_decoders


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    found = fuzz_decoders.mutated(data, rng) if rng.random() < 0.8 else None
    return atheris.Mutate(data, max_size) if found is None or len(found) > max_size else found


def read(data: bytes) -> None:
    fuzz_decoders.read(data)


def main() -> None:
    warnings.simplefilter("error")
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders and folders[0].is_dir():
        for number, seed in enumerate(fuzz_decoders.seeds()):
            (folders[0] / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
