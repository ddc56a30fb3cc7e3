"""rules.cpp: the table of forms, and the constants with which the kernels are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fast_momentum import _core, reference
from helpers import FORMS, OPTIONS_OF_MOMENTUM, option_id

TABLE = {
    # form, first: keep, gain, direct, carried, scale, with lr 0.25, momentum 0.5, dampening 0.125
    ("lr_outside", False): (0.5, 0.875, 1, 0.5, 0.25),
    ("lr_outside", True): (0, 1, 1, 0.5, 0.25),
    ("lr_inside", False): (0.5, 0.25, 0.25, 0.5, 1),
    ("lr_inside", True): (0.5, 0.25, 0.25, 0.5, 1),
    ("ema", False): (0.5, 0.5, 0.5, 0.5, 0.25),
    ("ema", True): (0.5, 0.5, 0.5, 0.5, 0.25),
}


def coefficients(form: str, first: bool = False, **numbers: float) -> dict[str, float]:
    return _core.coefficients("momentum", form, 0 if first else 1, **numbers)


def test_every_form_is_in_the_table() -> None:
    assert {form for form, _ in TABLE} == set(FORMS)


@pytest.mark.parametrize(("form", "first"), TABLE)
def test_table(form: str, first: bool) -> None:
    c = coefficients(form, first=first, lr=0.25, momentum=0.5, dampening=0.125)
    assert tuple(c[k] for k in ("keep", "gain", "direct", "carried", "scale")) == TABLE[form, first]
    assert (c["sign"], c["weight_decay"], c["decay"]) == (1, 0, 0)
    assert c["ahead"] == (0.5 if form == "lr_inside" else 0.125)


def test_options() -> None:
    coupled = coefficients("ema", lr=0.25, momentum=0.5, weight_decay=0.5, maximize=True)
    assert (coupled["sign"], coupled["weight_decay"], coupled["decay"]) == (-1, 0.5, 0)
    decoupled = coefficients("ema", lr=0.25, momentum=0.5, weight_decay=0.5, decoupled_weight_decay=True)
    assert (decoupled["weight_decay"], decoupled["decay"]) == (0, 0.125)


def test_formed_in_double() -> None:
    c = coefficients("lr_outside", lr=0.1, momentum=0.9, dampening=0.9)
    assert c["gain"] == 1 - 0.9
    assert np.float32(c["gain"]) != np.float32(1) - np.float32(0.9)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("options", OPTIONS_OF_MOMENTUM, ids=option_id)
def test_the_linear_rule_is_the_reference(options: dict[str, Any], first: bool) -> None:
    """The constants put into the linear rule, in double, against the formulas of each form."""
    rng = np.random.default_rng(1)
    p, g, v = rng.normal(size=(3, 50))
    if first:
        v[:] = 0
    given = {"momentum": 0.8, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0,
             "decoupled_weight_decay": False, "maximize": False, **options}  # fmt: skip
    c = coefficients(first=first, **given)
    d = c["sign"] * g + c["weight_decay"] * p
    new_v = c["keep"] * v + c["gain"] * d
    u = c["direct"] * d + c["carried"] * new_v if given["nesterov"] else new_v
    new_p = p - (c["scale"] * u + c["decay"] * p)
    expected = reference.update(p, g, v, first=first, **given)
    np.testing.assert_allclose((new_p, new_v), expected, rtol=1e-14, atol=1e-15)
