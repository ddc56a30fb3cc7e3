"""PyTorch: the state of `torch.optim.SGD` taken over and handed back, and tensors seen as NumPy arrays.

The layout of ``SGD.state_dict()`` was read in, and tested with, the version `TESTED`. What another version may have
put there is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._containers import Keys, path_of
from ._moving import checked_form, checked_like, imported, keys_of, kind, one_number, prefix

try:
    import torch
except ImportError as error:
    _message = "fast_momentum.adapters.pytorch must have torch; pip install 'fast-momentum[pytorch]'"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .. import _core

    Groups = list[dict[str, Any]]

__all__ = ["arrays", "export_state", "grads", "import_state"]

TESTED = "2.13.0"

DTYPES = (torch.float32, torch.float64)
NUMBERS = ("lr", "momentum", "dampening", "weight_decay")
FLAGS = ("nesterov", "maximize")
# How PyTorch runs the step, what names and numbers the parameters, and what its schedulers keep: not for `State`.
LEFT_ALONE = {
    "foreach", "fused", "differentiable", "params", "param_names",
    "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum",
}  # fmt: skip


def import_state(
    params: Any, state_dict: Mapping[str, Any], *, names: Sequence[str] | None = None, step_count: int = 0
) -> _core.State:
    """Take over a state of ``torch.optim.SGD``, for `params` in NumPy.

    ::

        velocity = momentum_buffer      started = there is a momentum_buffer

    PyTorch numbers the parameters through its groups. They are paired with the arrays of `params`

    - by name, if there are `names`, or `params` has a dict and `state_dict` has names, as it does if the optimizer was
      made with ``model.named_parameters()``; the array ``params["encoder"][0]["bias"]`` has the name
      ``encoder.0.bias``, and so has ``params["encoder.0.bias"]``;
    - else in the order of the arrays. A dict is then refused if there are several groups, as its order is not theirs.

    Parameters
    ----------
    params : ndarray, or nested list, tuple or dict of them
        As for `fast_momentum.init`. Their values are yours to copy.
    state_dict : dict
        What ``torch.optim.SGD.state_dict()`` returned, with tensors on whatever device.
    names : sequence of str, optional
        The name of each parameter, in the order of the groups.
    step_count : int, default 0
        The steps made so far, which PyTorch does not keep.

    Returns
    -------
    State
        Of the form ``lr_outside``. A hyperparameter that differs between the groups has a number for each array.
        Dampening is 0 where momentum is, as PyTorch ignores it there.

    Raises
    ------
    TypeError
        A buffer has not the dtype of its parameter.
    ValueError
        `state_dict` is not that of an SGD, numbers or names do not fit `params`, the groups differ in nesterov or
        maximize, or there is something that a `State` does not have.

    See Also
    --------
    export_state : The other way.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

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
    """
    groups = _checked_groups(state_dict)
    flags = {}
    for name in FLAGS:
        values = {bool(group[name]) for group in groups}
        if len(values) > 1:
            msg = f"state_dict must have one {name} for all of its param_groups, not True and False; use two states"
            raise ValueError(msg)
        flags[name] = values == {True}
    velocities: dict[Keys, NDArray[Any]] = {}
    numbers: dict[str, dict[Keys, float]] = {name: {} for name in NUMBERS}
    for group, arrays_of_group in zip(groups, _grouped(params, groups, names, "params"), strict=True):
        for number, keys in zip(group["params"], arrays_of_group, strict=True):
            buffer = _checked_buffer(state_dict, number)
            if buffer is not None:
                velocities[keys] = _buffer_array(buffer, number)
            for name in NUMBERS:
                ignored = name == "dampening" and float(group["momentum"]) == 0
                numbers[name][keys] = 0.0 if ignored else float(group[name])
    hyperparameters = {name: prefix(params, by_keys) for name, by_keys in numbers.items()}
    return imported(params, velocities, "the momentum_buffer", step_count, **hyperparameters, **flags)


def export_state(
    state: _core.State, optimizer: torch.optim.SGD, *, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what ``optimizer.load_state_dict`` takes, so that it goes on from `state`.

    ::

        momentum_buffer = velocity, of the arrays that have started

    Parameters
    ----------
    state : State
        Of the form ``lr_outside``.
    optimizer : torch.optim.SGD
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
        The form is another, a hyperparameter differs within a group, the decay is decoupled, or there is dampening
        without momentum; or numbers, names or shapes do not fit.

    See Also
    --------
    import_state : The other way.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

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
    checked_form(state, "lr_outside", "torch.optim.SGD")
    if not isinstance(optimizer, torch.optim.SGD):
        msg = f"optimizer must be a torch.optim.SGD, not {kind(optimizer)}"
        raise TypeError(msg)
    groups = _checked_groups(optimizer.state_dict())
    saved = state.state_dict()
    buffers, exported = {}, []
    for index, keys_of_group in enumerate(_grouped(state.velocity, groups, names, "state")):
        group, tensors = groups[index], optimizer.param_groups[index]["params"]
        exported.append({**group, **_hyperparameters(state, keys_of_group, f"param_groups[{index}]")})
        for number, tensor, path in zip(group["params"], tensors, map(path_of, keys_of_group), strict=True):
            velocity = saved["velocity"][path]
            where = f"state.velocity{path}"
            checked_like(where, velocity, f"parameter {number} of optimizer", tensor.shape, velocity.dtype)
            if saved["steps"][path]:
                buffers[number] = {"momentum_buffer": _laid_out_like(tensor, torch.from_numpy(velocity))}
    return {"state": buffers, "param_groups": exported}


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
        Something is no tensor, or a tensor is sparse, not on the CPU, or neither float32 nor float64.

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

    Take them anew for each step: ``zero_grad()`` drops the gradients, and ``backward()`` makes new ones.

    Parameters
    ----------
    tensors : torch.nn.Module, torch.Tensor, or nested list, tuple or dict of tensors
        As in `arrays`.

    Returns
    -------
    ndarray or None, or list, tuple or dict
        The same containers. None where a tensor has no gradient.

    Raises
    ------
    TypeError
        As in `arrays`, for the gradients.

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


def _checked_groups(state_dict: Mapping[str, Any]) -> Groups:
    if not (isinstance(state_dict, dict) and {"state", "param_groups"} <= state_dict.keys()):
        msg = f"state_dict must be what torch.optim.SGD.state_dict() returns, not {kind(state_dict)}"
        raise ValueError(msg)
    for index, group in enumerate(state_dict["param_groups"]):
        where = f"state_dict['param_groups'][{index}]"
        missing = [name for name in (*NUMBERS, *FLAGS, "params") if name not in group]
        if missing:
            msg = f"{where} must have {', '.join(missing)}, as a torch.optim.SGD has, not {', '.join(group)} alone"
            raise ValueError(msg)
        if group.get("differentiable"):
            msg = f"{where} must not be differentiable, which a step here is not"
            raise ValueError(msg)
        unknown = [name for name in group if name not in (*NUMBERS, *FLAGS, *LEFT_ALONE)]
        if unknown:
            msg = (
                f"{where} must have no {', '.join(unknown)}, which SGD of PyTorch {TESTED} does not read; "
                f"delete it, if yours does not either"
            )
            raise ValueError(msg)
    return list(state_dict["param_groups"])


def _grouped(containers: Any, groups: Groups, names: Sequence[str] | None, where: str) -> list[list[Keys]]:
    """For each group, what leads to the arrays of its parameters."""
    arrays = keys_of(containers)
    sizes = [len(group["params"]) for group in groups]
    if len(arrays) != sum(sizes):
        msg = f"{where} must have {sum(sizes)} arrays, one for each parameter of the optimizer, not {len(arrays)}"
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


def _checked_buffer(state_dict: Mapping[str, Any], number: Any) -> Any:
    kept = state_dict["state"].get(number, {})
    unknown = [name for name in kept if name != "momentum_buffer"]
    if unknown:
        msg = f"state_dict['state'][{number}] must have a momentum_buffer alone, as that of SGD, not {', '.join(unknown)}"
        raise ValueError(msg)
    return kept.get("momentum_buffer")


def _buffer_array(buffer: torch.Tensor, number: Any) -> NDArray[Any]:
    found = buffer.detach().cpu()
    reason = _refusal(found)
    if reason is not None:
        msg = f"state_dict['state'][{number}]['momentum_buffer'] must {reason}"
        raise TypeError(msg)
    array: NDArray[Any] = found.numpy()
    return array


def _laid_out_like(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A fused step goes through a parameter and its buffer in the order of memory, whatever their strides are."""
    return torch.empty_like(tensor, dtype=values.dtype, device="cpu", requires_grad=False).copy_(values)


def _hyperparameters(state: _core.State, arrays: list[Keys], where: str) -> dict[str, Any]:
    if not arrays:
        return {}
    found: dict[str, Any] = {
        name: one_number(state, name, arrays, where, "make a group for each") for name in NUMBERS
    }
    if found["dampening"] and not found["momentum"]:
        msg = f"state.dampening must be 0 for {where}, where momentum is 0 and PyTorch ignores it, not {found['dampening']}"
        raise ValueError(msg)
    if found["weight_decay"] and state.decoupled_weight_decay:
        msg = f"state.decoupled_weight_decay must be False for {where}, as torch.optim.SGD has coupled decay, not True"
        raise ValueError(msg)
    return {**found, **{name: getattr(state, name) for name in FLAGS}}


def _mapped(function: Any, tensors: Any, keys: Keys = ()) -> Any:
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
    return _array(tensor.grad, keys, ".grad")


def _array(tensor: Any, keys: Keys, suffix: str = "") -> Any:
    if tensor is None:
        return None
    reason = _refusal(tensor)
    if reason is None:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    msg = f"tensors{path_of(keys)}{suffix} must {reason}"
    raise TypeError(msg)


def _refusal(tensor: Any) -> str | None:
    """What a thing must be that is no dense tensor on the CPU with a dtype of ours."""
    if not isinstance(tensor, torch.Tensor):
        return f"be a torch.Tensor, not {kind(tensor)}"
    if tensor.layout is not torch.strided:
        return f"be dense, not {tensor.layout}; .to_dense() makes a copy"
    if not tensor.is_cpu:
        return f"be on the CPU, not {tensor.device}; .cpu() makes a copy"
    if tensor.dtype not in DTYPES:
        return f"have dtype torch.float32 or torch.float64, not {tensor.dtype}; .float() makes a copy"
    return None
