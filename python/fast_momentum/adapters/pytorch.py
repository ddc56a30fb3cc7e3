"""PyTorch: the states of optimizers of `torch.optim` taken over and handed back, and tensors seen as NumPy arrays.

The layout of ``state_dict()`` was read in, and tested with, the version `TESTED`. What another version may have put there
is refused by name.
"""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _core
from .._containers import Keys, leaves, path_of
from ._moving import (
    checked_like,
    checked_rule,
    checked_settings,
    imported,
    is_number,
    keys_of,
    kind,
    one_number,
    prefix,
)

try:
    import torch
except ImportError as error:
    _message = "fast_momentum.adapters.pytorch must have torch; pip install torch"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Groups = list[dict[str, Any]]

__all__ = ["arrays", "export_state", "grads", "import_state"]

TESTED = "2.13.0"

DTYPES = (torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128)
DEEPEST = 100


class Optimizer(NamedTuple):
    """What an optimizer is here, and what it has in a group and of a parameter."""

    rule: str
    fixed: dict[str, Any]  # settings that it has no name for
    settings: tuple[str, ...]
    keeps: tuple[str, ...]


_common = ("lr", "weight_decay", "maximize")
_adam = (*_common, "betas", "eps", "decoupled_weight_decay")
_moments = ("step", "exp_avg", "exp_avg_sq")
_coupled = {"decoupled_weight_decay": False}
ADAM = Optimizer(
    "adam", {"form": "corrected", "nesterov": False}, (*_adam, "amsgrad"), (*_moments, "max_exp_avg_sq")
)
OPTIMIZERS: dict[Any, Optimizer] = {
    torch.optim.SGD: Optimizer("momentum", {"form": "lr_outside", **_coupled},
        (*_common, "momentum", "dampening", "nesterov"), ("momentum_buffer",)),
    torch.optim.Adam: ADAM,
    torch.optim.AdamW: ADAM._replace(fixed={**ADAM.fixed, "decoupled_weight_decay": True}),
    torch.optim.NAdam: Optimizer("adam", {"form": "corrected", "nesterov": True, "amsgrad": False},
        (*_adam, "momentum_decay"), (*_moments, "mu_product")),
    torch.optim.RMSprop: Optimizer("rmsprop", {"form": "lr_outside", **_coupled},
        (*_common, "alpha", "eps", "momentum", "centered"), ("step", "square_avg", "grad_avg", "momentum_buffer")),
}  # fmt: skip

# Their names where ours are others: in a group, and of a parameter, those of a checkpoint.
SETTINGS = {"betas": ("beta1", "beta2"), "alpha": ("rho",)}
KEPT = {
    "momentum_buffer": "velocity", "exp_avg": "velocity", "exp_avg_sq": "second_moment", "square_avg": "second_moment",
    "max_exp_avg_sq": "second_moment_maximum", "grad_avg": "mean", "step": "steps", "mu_product": "momentum_products",
}  # fmt: skip
ONLY_WITH = {"max_exp_avg_sq": "amsgrad", "grad_avg": "centered", "momentum_buffer": "momentum"}
# How PyTorch runs the step, what names and numbers the parameters, and what its schedulers keep: not for `State`.
LEFT_ALONE = {
    "foreach", "fused", "capturable", "differentiable", "params", "param_names",
    "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum",
}  # fmt: skip


def import_state(
    params: Any,
    state_dict: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    step_count: int | None = None,
) -> _core.State:
    """Take over a state of SGD, Adam, AdamW, NAdam or RMSprop of ``torch.optim``, for `params` in NumPy.

    ::

        SGD                 velocity = momentum_buffer      started = there is a momentum_buffer
        Adam, AdamW, NAdam  velocity = exp_avg              second_moment = exp_avg_sq
                            second_moment_maximum = max_exp_avg_sq
        RMSprop             velocity = momentum_buffer      second_moment = square_avg      mean = grad_avg
        all but SGD         steps of an array = step        momentum_product of an array = mu_product

    Whose state it is, the names in its groups say. PyTorch numbers the parameters through its groups. They are paired
    with the arrays of `params`

    - by name, if there are `names`, or `params` has a dict and `state_dict` has names, as it does if the optimizer was
      made with ``model.named_parameters()``; the array ``params["encoder"][0]["bias"]`` has the name
      ``encoder.0.bias``, and so has ``params["encoder.0.bias"]``;
    - else in the order of the arrays. A dict is then refused if there are several groups, as its order is not theirs.

    Parameters
    ----------
    params : ndarray, or nested list, tuple or dict of them
        As for `fast_momentum.init`. Their values are yours to copy.
    state_dict : dict
        What ``state_dict()`` of such an optimizer returned, with tensors on whatever device.
    names : sequence of str, optional
        The name of each parameter, in the order of the groups.
    step_count : int, optional
        The steps made so far. By default those of the parameter that has made most, and 0 of SGD, which does not keep
        them.

    Returns
    -------
    State
        As `fast_momentum.init` makes it, of the form ``lr_outside``; as `fast_momentum.adam`, of the form
        ``corrected``; or as `fast_momentum.rmsprop`, of the form ``lr_outside``. A hyperparameter that differs between
        the groups has a number for each array. Dampening is 0 where momentum is, as PyTorch ignores it there.

    Raises
    ------
    TypeError
        What is kept of a parameter has not its dtype.
    ValueError
        `state_dict` is not that of one of these optimizers, numbers or names do not fit `params`, the groups differ in
        what all arrays of a state share, such as nesterov or amsgrad, or there is something that a `State` does not
        have.

    See Also
    --------
    export_state : The other way.

    References
    ----------
    https://docs.pytorch.org/docs/stable/optim.html

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from fast_momentum.adapters import pytorch
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    >>> model(torch.ones(3)).sum().backward()
    >>> optimizer.step()
    >>> params = {name: np.array(p) for name, p in pytorch.arrays(model).items()}
    >>> state = pytorch.import_state(params, optimizer.state_dict(), step_count=1)
    >>> state
    <State lr_outside, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, 2 arrays, 4 elements, 1 step>
    >>> state.velocity["weight"].tolist()
    [[1.0, 1.0, 1.0]]

    The optimizer of the same model could have been Adam.

    >>> optimizer = torch.optim.Adam(model.named_parameters(), lr=0.1)
    >>> optimizer.step()
    >>> pytorch.import_state(params, optimizer.state_dict())
    <State adam corrected, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.0, 2 arrays, 4 elements, 1 step>
    """
    cls, groups = _checked(state_dict)
    _check_nothing_is_left(state_dict, groups)
    optimizer = OPTIMIZERS[cls]
    numbers: dict[str, dict[Keys, float]] = {}
    kept: dict[str, tuple[str, dict[Keys, Any]]] = {
        name: (KEPT[name], {}) for name in ("step", *optimizer.keeps)
    }
    for group, arrays_of_group in zip(groups, _grouped(params, groups, names, "params"), strict=True):
        for number, keys in zip(group["params"], arrays_of_group, strict=True):
            found = _checked_kept(state_dict, number, group, optimizer)
            if found and optimizer.rule == "momentum":
                found["step"] = max(step_count or 0, 1)
            for name, value in found.items():
                where = f"state_dict['state'][{number}][{name!r}]"
                kept[name][1][keys] = _plain(value, name, where)
            for name, value in _numbers(group, optimizer).items():
                numbers.setdefault(name, {})[keys] = value
    if step_count is None:
        step_count = 0 if optimizer.rule == "momentum" else max(kept["step"][1].values(), default=0)
    settings = {name: prefix(params, by_keys) for name, by_keys in numbers.items()}
    try:
        return imported(
            params,
            optimizer.rule,
            kept,
            step_count,
            **{**optimizer.fixed, **settings, **_shared(groups, optimizer)},
        )
    except ValueError as error:
        if len(groups) > 1:
            error.add_note(
                "The parameters are paired in the order of the groups, which is that of names, too."
            )
        raise


def export_state(
    state: _core.State, optimizer: torch.optim.Optimizer, *, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what ``optimizer.load_state_dict`` takes, so that it goes on from `state`.

    What it keeps of each parameter that has started is as in `import_state`.

    Parameters
    ----------
    state : State
        One that `import_state` could have made from the state of such an optimizer.
    optimizer : torch.optim.SGD, Adam, AdamW, NAdam or RMSprop
        The receiving one. It is not changed. Its groups, and what is in them beside hyperparameters, such as ``foreach``
        and ``initial_lr``, are kept.
    names : sequence of str, optional
        As in `import_state`, in which the pairing of arrays and parameters is described.

    Returns
    -------
    dict
        Of copies, in the layout of the parameters, as fused steps need it. ``load_state_dict`` moves them to the
        device and dtype of the parameters.

    Raises
    ------
    TypeError
        `optimizer` is something else.
    ValueError
        The rule or the form is another, a hyperparameter differs within a group, the optimizer lacks one, such as a
        decoupled decay or dampening without momentum; or numbers, names or shapes do not fit.

    See Also
    --------
    import_state : The other way.

    References
    ----------
    https://docs.pytorch.org/docs/stable/optim.html

    Examples
    --------
    >>> import fast_momentum as fm
    >>> import torch
    >>> from fast_momentum.adapters import pytorch
    >>> weights = [torch.zeros(2), torch.zeros(3)]
    >>> params = pytorch.arrays(weights)
    >>> state = fm.init(params, lr=0.1, momentum=0.9)
    >>> fm.step(params, [params[0] + 1, None], state)
    >>> optimizer = torch.optim.SGD(weights)
    >>> optimizer.load_state_dict(pytorch.export_state(state, optimizer))
    >>> optimizer.state_dict()["state"]
    {0: {'momentum_buffer': tensor([1., 1.])}}
    >>> optimizer.param_groups[0]["momentum"]
    0.9
    """
    cls = next((cls for cls in type(optimizer).__mro__ if cls in OPTIMIZERS), None)
    if cls is None:
        msg = f"optimizer must be one of {', '.join(map(_name, OPTIMIZERS))}, not {kind(optimizer)}"
        raise TypeError(msg)
    theirs = OPTIMIZERS[cls]
    checked_rule(state, theirs.rule, _name(cls))
    checked_settings(state, theirs.fixed, _name(cls))
    _, groups = _checked(optimizer.state_dict(), cls)
    saved = state.state_dict()
    kept, exported = {}, []
    for index, keys_of_group in enumerate(_grouped(state.velocity, groups, names, "state")):
        group, tensors = groups[index], optimizer.param_groups[index]["params"]
        exported.append({**group, **_hyperparameters(state, theirs, keys_of_group, f"param_groups[{index}]")})
        for number, tensor, path in zip(group["params"], tensors, map(path_of, keys_of_group), strict=True):
            velocity = saved["velocity"][path]
            like = f"parameter {number} of optimizer"
            checked_like(f"state.velocity{path}", velocity, like, tensor.shape, velocity.dtype)
            if saved["steps"][path]:
                kept[number] = {
                    name: _tensor(saved[KEPT[name]][path], name, tensor)
                    for name in theirs.keeps
                    if path in saved[KEPT[name]]
                }
    return {"state": kept, "param_groups": exported}


def arrays(tensors: Any) -> Any:
    """Return NumPy arrays over the memory of tensors: a step of the arrays is a step of the tensors.

    Strides are kept, and nothing is copied. Autograd does not notice a step of the arrays, so step after
    ``backward()``; ``torch.autograd.graph.increment_version(model.parameters())`` tells it.

    Parameters
    ----------
    tensors : torch.nn.Module, torch.Tensor, or nested list, tuple or dict of tensors
        Of a module, its ``named_parameters()`` as a dict. None in the place of a tensor stays None.

    Returns
    -------
    ndarray, or list, tuple or dict
        The same containers. Valid as long as the tensors keep their memory, which ``module.load_state_dict()`` lets
        them, and ``module.double()`` does not.

    Raises
    ------
    TypeError
        Something is no tensor, or a tensor is sparse, not on the CPU, or not float16, float32, float64, complex64 or complex128.

    See Also
    --------
    grads : The same for the gradients.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.Tensor.numpy.html

    Examples
    --------
    >>> import fast_momentum as fm
    >>> import torch
    >>> from fast_momentum.adapters import pytorch
    >>> weight = torch.zeros(3, requires_grad=True)
    >>> params = pytorch.arrays({"w": weight})
    >>> state = fm.init(params, lr=0.5)
    >>> weight.sum().backward()
    >>> fm.step(params, pytorch.grads({"w": weight}), state)
    >>> weight.tolist()
    [-0.5, -0.5, -0.5]
    """
    return _mapped(_array, tensors)


def grads(tensors: Any) -> Any:
    """Return NumPy arrays over the memory of the gradients of tensors, without a copy.

    A sparse gradient, as ``torch.nn.Embedding(..., sparse=True)`` has, becomes `fast_momentum.Rows`, so that the step is
    one of these rows alone, as in ``torch.optim.SparseAdam``.

    Take them anew for each step: ``zero_grad()`` drops the gradients, and ``backward()`` makes new ones. Those of complex
    tensors are ``df/dx + i df/dy``, as `fast_momentum.step` takes them.

    Parameters
    ----------
    tensors : torch.nn.Module, torch.Tensor, or nested list, tuple or dict of tensors
        As in `arrays`.

    Returns
    -------
    ndarray, Rows or None, or list, tuple or dict
        The same containers. None where a tensor has no gradient.

    Raises
    ------
    TypeError
        As in `arrays`, for the gradients and for the values of sparse ones; or such a one has no whole rows.

    See Also
    --------
    arrays : The same for the tensors themselves.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.Tensor.grad.html

    Examples
    --------
    >>> import torch
    >>> from fast_momentum.adapters import pytorch
    >>> model = torch.nn.Linear(2, 1)
    >>> model.bias.sum().backward()
    >>> pytorch.grads(model)
    {'weight': None, 'bias': array([1.], dtype=float32)}
    """
    return _mapped(_gradient, tensors)


def _name(cls: Any) -> str:
    return f"torch.optim.{cls.__name__}"


def _checked(state_dict: Mapping[str, Any], cls: Any = None) -> tuple[Any, Groups]:
    """Whose state it is, by the names in its groups if that is not known, and the groups."""
    if not (isinstance(state_dict, dict) and "state" in state_dict and state_dict.get("param_groups")):
        msg = (
            f"state_dict must be what state_dict() of an optimizer of PyTorch returns, not {kind(state_dict)}"
        )
        raise ValueError(msg)
    given: list[Any] = list(state_dict["param_groups"])
    for index, group in enumerate(given):
        if not (isinstance(group, dict) and isinstance(group.get("params", []), (list, tuple))):
            msg = (
                f"state_dict['param_groups'][{index}] must be a dict with a list of params, not {kind(group)}"
            )
            raise TypeError(msg)
    groups: Groups = given
    found = groups[0].keys() - LEFT_ALONE
    cls = cls or min(OPTIMIZERS, key=lambda cls: len(found ^ {*OPTIMIZERS[cls].settings}))
    settings = OPTIMIZERS[cls].settings
    for index, group in enumerate(groups):
        where = f"state_dict['param_groups'][{index}]"
        missing = [name for name in (*settings, "params") if name not in group]
        if missing:
            msg = (
                f"{where} must have {', '.join(missing)}, as a {_name(cls)} has, not {', '.join(group)} alone"
            )
            raise ValueError(msg)
        if group.get("differentiable"):
            msg = f"{where} must not be differentiable, which a step here is not"
            raise ValueError(msg)
        unknown = [name for name in group if name not in (*settings, *LEFT_ALONE)]
        if unknown:
            msg = (
                f"{where} must have no {', '.join(unknown)}, which {_name(cls)} of PyTorch {TESTED} does not read; "
                f"delete it, if yours does not either"
            )
            raise ValueError(msg)
        groups[index] = {
            **group,
            **{name: _setting(group[name], name, f"{where}[{name!r}]") for name in settings},
        }
    return cls, groups


def _setting(value: Any, name: str, where: str) -> Any:
    """A setting of a group: a number, or a tensor of one; several of them; or a flag."""
    ours = SETTINGS.get(name, (name,))
    if len(ours) > 1:
        if not (isinstance(value, (list, tuple)) and len(value) == len(ours)):
            msg = f"{where} must be {len(ours)} numbers, not {kind(value)}"
            raise TypeError(msg)
        return tuple(_number(number, f"{where}[{k}]") for k, number in enumerate(value))
    if is_number(ours[0]) or _core.settings[ours[0]]["kind"] == "option":
        return _number(value, where)
    if not isinstance(value, bool):
        msg = f"{where} must be True or False, not {kind(value)}"
        raise TypeError(msg)
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        msg = f"{where} must be a number, not {kind(value)}"
        raise TypeError(msg)
    return float(value)


def _check_nothing_is_left(state_dict: Mapping[str, Any], groups: Groups) -> None:
    """What no parameter has would be dropped in silence."""
    unknown = [name for name in state_dict if name not in ("state", "param_groups")]
    if unknown:
        msg = f"state_dict must have state and param_groups alone, not {', '.join(map(repr, unknown))}; delete it"
        raise ValueError(msg)
    numbers = [number for group in groups for number in group["params"]]
    known = {*numbers}
    if len(known) < len(numbers):
        msg = "state_dict['param_groups'] must have each parameter once, not one of them twice"
        raise ValueError(msg)
    state = state_dict["state"]
    if not isinstance(state, dict) or not all(isinstance(kept, dict) for kept in state.values()):
        msg = (
            f"state_dict['state'] must be a dict with a dict for each parameter, not {kind(state)} of others"
        )
        raise ValueError(msg)
    strangers = [key for key in state if key not in known]
    if strangers:
        way_out = "; JSON made strings of numbers: {int(key): kept for key, kept in state.items()}"
        msg = (
            f"state_dict['state'] must have no keys but the numbers in its param_groups, not {strangers[0]!r}"
            f"{way_out if isinstance(strangers[0], str) else ''}"
        )
        raise ValueError(msg)


def _numbers(group: dict[str, Any], optimizer: Optimizer) -> dict[str, float]:
    """The numbers of a group by our names."""
    found = {}
    for name in optimizer.settings:
        ours = SETTINGS.get(name, (name,))
        values = group[name] if len(ours) > 1 else [group[name]]
        found.update({mine: x for mine, x in zip(ours, values, strict=True) if is_number(mine)})
    if "dampening" in found and found["momentum"] == 0:
        found["dampening"] = 0.0
    return found


def _shared(groups: Groups, optimizer: Optimizer) -> dict[str, Any]:
    """What all arrays of a state have in common."""
    found = {}
    for name in optimizer.settings:
        if name not in SETTINGS and not is_number(name):
            values = sorted({group[name] for group in groups}, reverse=True)
            if len(values) > 1:
                listed = " and ".join(map(str, values))
                msg = f"state_dict must have one {name} for all of its param_groups, not {listed}; use two states"
                raise ValueError(msg)
            found[name] = values[0]
    return found


def _grouped(containers: Any, groups: Groups, names: Sequence[str] | None, where: str) -> list[list[Keys]]:
    """For each group, what leads to the arrays of its parameters."""
    arrays = keys_of(containers)
    sizes = [len(group["params"]) for group in groups]
    if len(arrays) != sum(sizes):
        msg = f"{where} must have {sum(sizes)} arrays, one for each parameter of the optimizer, not {len(arrays)}"
        if any(isinstance(leaf, (torch.nn.Module, torch.Tensor)) for _, leaf in leaves(containers)):
            msg += "; pass pytorch.arrays() of the model"
        raise ValueError(msg)
    if names is None and any(isinstance(key, str) for keys in arrays for key in keys):
        if all("param_names" in group for group in groups):
            names = [name for group in groups for name in group["param_names"]]
        elif len(groups) > 1:
            msg = (
                f"names must be given where {where} has a dict and the optimizer several groups without names, not None; "
                f"pass the name of each parameter, in the order of the groups"
            )
            raise ValueError(msg)
    if names is not None:
        by_name = {".".join(map(str, keys)): keys for keys in arrays}
        if sorted(names) != sorted(by_name):
            msg = f"names must be those of the arrays of {where}, {sorted(by_name)}, not {sorted(names)}"
            raise ValueError(msg)
        arrays = [by_name[name] for name in names]
    following = iter(arrays)
    return [[next(following) for _ in range(size)] for size in sizes]


def _checked_kept(
    state_dict: Mapping[str, Any], number: Any, group: dict[str, Any], optimizer: Optimizer
) -> dict[str, Any]:
    """What there is of a parameter; nothing, if it has not started."""
    found = state_dict["state"].get(number, {})
    kept = {name: value for name, value in found.items() if value is not None}
    needed = [name for name in optimizer.keeps if name not in ONLY_WITH or group[ONLY_WITH[name]]]
    if kept and not ({*needed} <= kept.keys() <= {*optimizer.keeps}):
        msg = f"state_dict['state'][{number}] must have {', '.join(needed)}, by its group, not {', '.join(kept)}"
        raise ValueError(msg)
    return kept


def _plain(value: Any, name: str, where: str) -> Any:
    """What is kept of a parameter, as a checkpoint of ours has it."""
    if name in ("step", "mu_product"):
        number = _number(value, where)
        return int(number) if name == "step" and number.is_integer() else number
    return _numpy(value.cpu() if isinstance(value, torch.Tensor) else value, where)


def _tensor(value: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The other way; a fused step goes through all tensors in the order of memory, whatever their strides are."""
    if name == "step":
        return torch.tensor(float(value))
    if name == "mu_product":
        return torch.tensor(value, dtype=torch.float64)
    values = torch.from_numpy(value)
    return torch.empty_like(tensor, dtype=values.dtype, device="cpu", requires_grad=False).copy_(values)


def _hyperparameters(
    state: _core.State, optimizer: Optimizer, arrays: list[Keys], where: str
) -> dict[str, Any]:
    if not arrays:
        return {}
    found: dict[str, Any] = {}
    for name in optimizer.settings:
        values = [
            one_number(state, ours, arrays, where, "make a group for each")
            if is_number(ours)
            else getattr(state, ours)
            for ours in SETTINGS.get(name, (name,))
        ]
        found[name] = tuple(values) if len(values) > 1 else values[0]
    if found.get("dampening") and not found["momentum"]:
        msg = f"state.dampening must be 0 for {where}, where momentum is 0 and PyTorch ignores it, not {found['dampening']}"
        raise ValueError(msg)
    if found.get("momentum_decay", 0) is None:
        msg = f"state.momentum_decay must be a number for {where}, as in torch.optim.NAdam, not None"
        raise ValueError(msg)
    return found


def _mapped(function: Any, tensors: Any, keys: Keys = ()) -> Any:
    if len(keys) > DEEPEST:
        msg = f"tensors must be nested {DEEPEST} levels deep at most, as params of init() are, not deeper"
        raise ValueError(msg)
    if isinstance(tensors, dict):
        return {key: _mapped(function, branch, (*keys, key)) for key, branch in tensors.items()}
    if isinstance(tensors, (list, tuple)):
        branches = [_mapped(function, branch, (*keys, k)) for k, branch in enumerate(tensors)]
        return branches if isinstance(tensors, list) else tuple(branches)
    if isinstance(tensors, torch.nn.Module):
        return _mapped(function, dict(tensors.named_parameters()), keys)
    return function(tensors, keys)


def _gradient(tensor: Any, keys: Keys) -> Any:
    if not isinstance(tensor, torch.Tensor):
        return _array(tensor, keys)
    grad = tensor.grad
    if grad is not None and grad.layout is torch.sparse_coo and grad.sparse_dim() == 1:
        # Not those of coalesce(), which would add up what Rows adds up.
        return _core.Rows(grad._indices()[0].numpy(), _array(grad._values(), keys, ".grad"))
    return _array(grad, keys, ".grad")


def _array(tensor: Any, keys: Keys, suffix: str = "") -> Any:
    if tensor is None:
        return None
    return _numpy(tensor, f"tensors{path_of(keys)}{suffix}")


def _numpy(tensor: Any, where: str) -> Any:
    reason = _refusal(tensor)
    if reason is not None:
        msg = f"{where} must {reason}"
        raise TypeError(msg)
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except (RuntimeError, TypeError) as error:  # as it says of tensors that stand for others
        msg = f"{where} must have memory that NumPy can see, which this {kind(tensor)} has not: {str(error).splitlines()[0]}"
        raise TypeError(msg) from error


def _refusal(tensor: Any) -> str | None:
    """What a thing must be that is no dense tensor on the CPU with a dtype of ours."""
    if not isinstance(tensor, torch.Tensor):
        return f"be a torch.Tensor, not {kind(tensor)}"
    if tensor.layout is not torch.strided:
        return f"be dense, not {tensor.layout}; .to_dense() makes a copy"
    if not tensor.is_cpu:
        return f"be on the CPU, not {tensor.device}; .cpu() makes a copy"
    if tensor.dtype not in DTYPES:
        *others, last = map(str, DTYPES)
        way_out = (
            "; .float() makes a copy" if tensor.is_floating_point() else ""
        )  # float32 may not hold others
        return f"have dtype {', '.join(others)} or {last}, not {tensor.dtype}{way_out}"
    return None
