from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import DTYPES, HALVES, ISAS, isa_in_use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Other examples in each run, but in continuous integration, where a run must be like the one before. How long an
# example takes to draw says something about the machine alone.
hypothesis.settings.register_profile(
    "fast_momentum",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)
hypothesis.settings.load_profile("fast_momentum")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "FAST_MOMENTUM_SANITIZED" in os.environ:
        skip = pytest.mark.skip(
            reason="Python alone, with nothing for a sanitizer to find, ten times as slow"
        )
        for item in items:
            if item.get_closest_marker("python_alone"):
                item.add_marker(skip)


def pytest_report_header() -> str:
    return f"fast_momentum {fm.__version__} from {fm.__file__}: {_core.config()}; numpy {np.__version__}"


# The sanitizers are ten times as slow, and what the others have is compiled from the same source.
@pytest.fixture(params=[_core.config()["in use"]] if "FAST_MOMENTUM_SANITIZED" in os.environ else ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with isa_in_use(request.param):
        yield request.param


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of a file of a run that is not there yet, in each format."""
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"run{request.param}"


@pytest.fixture(params=["float16", "bfloat16"])
def half(request: pytest.FixtureRequest) -> Any:
    for dtype in HALVES:
        if dtype.name == request.param:
            return dtype
    pytest.skip("ml_dtypes, which has bfloat16, is not installed")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Other numbers for each test, the same in each run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
