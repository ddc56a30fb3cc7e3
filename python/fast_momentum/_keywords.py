"""What is said of calls with keywords that a function does not have, or without what it needs; only where it is."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

_P = ParamSpec("_P")
_T = TypeVar("_T")

# What others call ours. Of a pair, both are meant; else those that the function has.
PAIRS = {"betas": ("beta1", "beta2")}
FOREIGN = {
    "T_max": ("steps",),
    "alpha": ("lr", "rho"),
    "b1": ("beta1",),
    "b2": ("beta2",),
    "beta": ("momentum", "beta1"),
    "beta1": ("momentum",),
    "beta2": ("rho",),
    "clip": ("clip_value", "clip_norm"),
    "decay": ("weight_decay", "rho", "factor"),
    "decoupled": ("decoupled_weight_decay",),
    "ema_momentum": ("average_decay",),
    "epochs": ("steps", "maxiter"),
    "epsilon": ("eps",),
    "eta": ("lr",),
    "eta_min": ("end",),
    "file": ("path",),
    "filename": ("path",),
    "gamma": ("momentum", "rho", "factor"),
    "global_clipnorm": ("clip_norm",),
    "gradients": ("grads",),
    "l2": ("weight_decay",),
    "learning_rate": ("lr", "start", "peak"),
    "learning_rate_init": ("lr",),
    "lr": ("start", "peak"),
    "max_grad_norm": ("clip_norm",),
    "max_iter": ("maxiter",),
    "max_lr": ("peak", "lr_max"),
    "max_norm": ("clip_norm",),
    "max_to_keep": ("keep",),
    "min_lr": ("end", "lr_min"),
    "model": ("params",),
    "momentum": ("beta1",),
    "mu": ("momentum", "beta1"),
    "nesterovs_momentum": ("nesterov",),
    "optimizer": ("state",),
    "parameters": ("params",),
    "rho": ("beta2", "momentum"),
    "step_size": ("lr", "every"),
    "tau": ("eps",),
    "total": ("steps",),
    "total_steps": ("steps",),
    "wd": ("weight_decay",),
    "weights": ("params",),
}

# How what has no default is come by.
GOT = {
    "lr": "add lr=0.01, or find one with tuning.range_test()",
    "state": "init() makes it, once, before the first step",
}


def message(function: str, given: Iterable[str], placed: int, names: Sequence[str], required: Collection[str],
            places: int) -> str:  # fmt: skip
    """What is wrong about a call with these keywords and as many arguments `placed` before them.

    `names` are those that the function has, of which the first `places` may be given by their place.
    """
    given = list(given)
    if unknown := [name for name in given if name not in names]:
        return refused(function, unknown, names)
    if placed > places:
        rest = [name for name in names[places:] if name not in given]
        way_out = f"; pass the rest by name, such as {rest[0]}=..." if rest else ""
        return f"{function}() must have at most {_counted(places)} by place, not {placed}{way_out}"
    if twice := [name for name in names[:placed] if name in given]:
        return f"{function}() must be given {twice[0]} once, not by its place and by its name"
    missing = [name for name in names if name in required and name not in (*given, *names[:placed])]
    has = [*names[:placed], *given]
    way_out = f"; {GOT[missing[0]]}" if missing and missing[0] in GOT else ""
    return f"{function}() must be given {_listed(missing)}, not {_listed(has) + ' alone' if has else 'nothing'}{way_out}"


def refused(function: str, unknown: list[str], names: Sequence[str]) -> str:
    """What is wrong about keywords that there are not; `names` are those that there are."""
    if len(unknown) == 1:
        way_out = (
            _way_out(unknown[0], names) or f"it has {', '.join(name for name in names if name != 'params')}"
        )
    else:
        found = {name: way_out for name in unknown if (way_out := _way_out(name, names))}
        way_out = ", ".join(f"for {name} {text}" for name, text in found.items())
    kind = "keyword" if len(unknown) == 1 else "keywords"
    return f"{function}() must not have the {kind} {', '.join(unknown)}" + (f"; {way_out}" if way_out else "")


def _way_out(name: str, names: Sequence[str]) -> str:
    if found := [known for known in PAIRS.get(name, ()) if known in names]:
        return f"use {' and '.join(found)}"
    if found := [known for known in FOREIGN.get(name, ()) if known in names]:
        return f"use {' or '.join(found)}"
    if found := difflib.get_close_matches(name, names, n=1):
        return f"use {found[0]}"
    return ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _counted(n: int) -> str:
    return f"{n} argument" + ("" if n == 1 else "s")


class Unnamed(TypeError):
    """What follows the name of a public function that has handed its keywords on; `explained` puts it before."""


def explained(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same function, which says of a keyword that it does not have what it is called here."""
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.name != "self"]
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    called = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        unknown = [] if hands_on else [name for name in kwargs if name not in names]
        if unknown:
            raise TypeError(refused(called, unknown, names))
        try:
            return function(*args, **kwargs)
        except Unnamed as refusal:
            msg = f"{called}{refusal}"
            raise TypeError(msg) from None

    return call
