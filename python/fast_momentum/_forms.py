"""The methods of State that change its velocities by a formula of `theory`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ._pickle import restore
from .reference import HYPERPARAMETERS, _leaves, _map, _path, round_to
from .theory._conversion import convert, velocity_factor
from .theory._inputs import form_name
from .theory._rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from . import _core

    Keys = tuple[Any, ...]


def to_form(state: _core.State, form: str) -> _core.State:
    """`State.to_form`."""
    form_name(form)
    containers, rest = state.__reduce__()[1]
    if form == state.form:
        return restore(containers, rest)
    given = {name: rest["hyperparameters"][name] for name in HYPERPARAMETERS}
    converted = []
    for (keys, velocity), started in zip(_leaves(containers), rest["started"], strict=True):
        mine = {name: _number_at(value, keys) for name, value in given.items()} | {"form": state.form}
        if mine["dampening"] and not started:
            msg = (
                f"state.dampening must be 0 for params{_path(keys)}, which has made no step, not {mine['dampening']!r}; "
                f"the first step of the form {state.form} is not damped, so make it first"
            )
            raise ValueError(msg)
        with _about(_path(keys)):
            _scale(velocity, velocity_factor(form, **mine), rest["velocity_dtype"])
            converted.append(convert(form, **mine))
    if all(isinstance(value, (float, bool)) for value in given.values()):
        found = convert(form, **given, form=state.form)
    else:
        found = given | {
            name: _prefix(name, converted, containers) for name in ("lr", "dampening", "weight_decay")
        }
    changed = {name: found[name] for name in HYPERPARAMETERS}
    return restore(
        containers, {**rest, "form": form, "hyperparameters": {**rest["hyperparameters"], **changed}}
    )


def set_lr(state: _core.State, lr: Any, rescale_velocity: bool) -> None:
    """`State.set_lr`."""
    old = state.lr
    state.lr = lr
    if not rescale_velocity:
        return
    try:
        factors = []
        for keys, velocity in _leaves(state.velocity):
            with _about(_path(keys)):
                factors.append(
                    _correction(velocity, state.form, _number_at(old, keys), _number_at(state.lr, keys))
                )
        if any(factor != 1 for factor in factors):
            saved = state.state_dict()
            for (path, velocity), factor in zip(saved["velocity"].items(), factors, strict=True):
                with _about(path):
                    _scale(velocity, factor, state.velocity_dtype)
            state.load_state_dict(saved)
    except BaseException:
        state.lr = old
        raise


def _correction(velocity: NDArray[Any], form: str, old: float, new: float) -> float:
    """What makes the velocity that of gradients which all came in at the new lr."""
    before, now = (float(rule(lr=lr, form=form).gain) for lr in (old, new))
    if before == now or not velocity.any():
        return 1.0
    if before == 0:
        msg = (
            f"state.lr must be above 0 before it changes, where a velocity of the form {form} is not zero, not 0.0; "
            f"call reset(), or set rescale_velocity=False"
        )
        raise ValueError(msg)
    return now / before


def _scale(velocity: NDArray[Any], factor: float, stored: str | None) -> None:
    """Multiply in place; `stored` is the `velocity_dtype`, in which the product must be finite, too."""
    with np.errstate(all="ignore"):  # in double: the factor may be out of the range of float32
        scaled = (velocity.astype(np.float64) * (factor if velocity.any() else 1)).astype(velocity.dtype)
        if stored in ("float16", "bfloat16", "int8"):
            scaled = round_to(scaled, stored)
    if not np.isfinite(scaled[np.isfinite(velocity)]).all():
        msg = f"the velocity must stay finite in {stored or velocity.dtype} when multiplied with {factor!r}"
        raise ValueError(msg)
    velocity[...] = scaled


def _number_at(prefix: Any, keys: Keys) -> Any:
    for key in keys:
        if isinstance(prefix, (float, bool)):
            break
        prefix = prefix[key]
    return prefix


def _prefix(name: str, converted: list[dict[str, Any]], containers: Any) -> Any:
    """The numbers of that name, in containers like those of the arrays."""
    following = iter(converted)
    return _map(lambda _: next(following)[name], containers)


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    """Errors say for which array."""
    try:
        yield
    except ValueError as error:
        if path:
            error.add_note(f"for params{path}")
        raise
