"""What the functions that make a State say of keywords that they do not have; only where one is refused."""

from __future__ import annotations

import difflib

# What others call ours. Of a pair, both are meant; else those that the function has.
PAIRS = {"betas": ("beta1", "beta2")}
FOREIGN = {
    "alpha": ("lr", "rho"),
    "b1": ("beta1",),
    "b2": ("beta2",),
    "beta": ("momentum", "beta1"),
    "beta1": ("momentum",),
    "beta2": ("rho",),
    "clip": ("clip_value", "clip_norm"),
    "decay": ("weight_decay", "rho"),
    "decoupled": ("decoupled_weight_decay",),
    "ema_momentum": ("average_decay",),
    "epsilon": ("eps",),
    "eta": ("lr",),
    "gamma": ("momentum", "rho"),
    "global_clipnorm": ("clip_norm",),
    "l2": ("weight_decay",),
    "learning_rate": ("lr",),
    "learning_rate_init": ("lr",),
    "max_grad_norm": ("clip_norm",),
    "max_norm": ("clip_norm",),
    "momentum": ("beta1",),
    "mu": ("momentum", "beta1"),
    "nesterovs_momentum": ("nesterov",),
    "rho": ("beta2", "momentum"),
    "step_size": ("lr",),
    "tau": ("eps",),
    "wd": ("weight_decay",),
}


def message(function: str, unknown: list[str], names: list[str]) -> str:
    """What is wrong about `unknown`, of which the first one is explained; `names` are the keywords that there are."""
    first = unknown[0]
    if found := [name for name in PAIRS.get(first, ()) if name in names]:
        way_out = f"use {' and '.join(found)}"
    elif found := [name for name in FOREIGN.get(first, ()) if name in names]:
        way_out = f"use {' or '.join(found)}"
    elif found := difflib.get_close_matches(first, names, n=1):
        way_out = f"use {found[0]}"
    else:
        way_out = f"it has {', '.join(names)}"
    kind = "keyword" if len(unknown) == 1 else "keywords"
    return f"{function}() must not have the {kind} {', '.join(unknown)}; {way_out}"
