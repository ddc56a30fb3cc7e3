from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import DTYPES, ISAS, isa_in_use

if TYPE_CHECKING:
    from collections.abc import Iterator

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")


def pytest_report_header() -> str:
    return f"fast_momentum {fm.__version__} from {fm.__file__}: {_core.config()}; numpy {np.__version__}"


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with isa_in_use(request.param):
        yield request.param


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Other numbers for each test, the same in each run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
