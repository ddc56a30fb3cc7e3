"""The methods of State that change its velocities by a formula of `theory`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from . import _core
from ._containers import at, leaves, mapped, path_of
from ._pickle import restore
from .theory._conversion import convert, velocity_factor
from .theory._inputs import choice
from .theory._rule import checked_momentum, defaults, form_name

if TYPE_CHECKING:
    from collections.abc import Iterator


def to_form(state: _core.State, form: str) -> _core.State:
    """`State.to_form`."""
    if state.rule == "adam":
        return _adam_to_form(state, form)
    checked_momentum(state, "to have another form")
    form_name(form)
    containers, rest = state.__reduce__()[1]
    if form == state.form:
        return restore(containers, rest)
    names = ["lr", *(name for name in defaults() if name != "form")]
    given = {name: rest["hyperparameters"][name] for name in names}
    converted: list[dict[str, Any]] = []
    factors = []
    for (keys, _), steps in zip(leaves(containers), rest["steps"], strict=True):
        mine = {name: at(value, keys) for name, value in given.items()} | {"form": state.form}
        if mine["dampening"] and not steps:
            msg = (
                f"state.dampening must be 0 for params{path_of(keys)}, which has made no step, not {mine['dampening']!r}; "
                f"the first step of the form {state.form} is not damped, so make it first"
            )
            raise ValueError(msg)
        with _about(path_of(keys)):
            factors.append(float(velocity_factor(form, **mine)))
            converted.append(convert(form, **mine))
    if all(isinstance(value, (float, bool)) for value in given.values()):
        found = convert(form, **given, form=state.form)
    else:
        found = given | {
            name: _prefix(name, converted, containers) for name in ("lr", "dampening", "weight_decay")
        }
    changed = {name: found[name] for name in names}
    hyperparameters = {**rest["hyperparameters"], **changed}
    other = restore(containers, {**rest, "form": form, "hyperparameters": hyperparameters})
    other._scale_velocities(factors)
    return other


def _adam_to_form(state: _core.State, form: str) -> _core.State:
    """The corrected forms agree where eps is 0, and the folded ones always; uncorrected is another path."""
    choice("form", form, tuple(row["form"] for row in _core.rules if row["rule"] == "adam"))
    corrected = {state.form, form} - {"folded", "folded_float64"}
    if state.form != form and "uncorrected" in corrected:
        msg = f"form must be one with the steps of {state.form!r}, not {form!r}; uncorrected ones are not corrected for t"
        raise ValueError(msg)
    containers, rest = state.__reduce__()[1]
    eps = [at(rest["hyperparameters"]["eps"], keys) for keys, _ in leaves(containers)]
    if state.form != form and corrected and any(eps):
        msg = (
            f"state.eps must be 0 for the form {form}, not {max(eps)!r}; the forms {state.form} and {form} give it "
            "another weight in each step"
        )
        raise ValueError(msg)
    return restore(containers, {**rest, "form": form})


def _prefix(name: str, converted: list[dict[str, Any]], containers: Any) -> Any:
    """The numbers of that name, in containers like those of the arrays."""
    following = iter(converted)
    return mapped(lambda _: next(following)[name], containers)


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    """Errors say for which array."""
    try:
        yield
    except ValueError as error:
        if path:
            error.add_note(f"for params{path}")
        raise
