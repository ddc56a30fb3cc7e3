// The docstrings of the public functions, in the numpydoc layout; the tests run their examples.

#pragma once

#include <string>

#include "plain/rules.hpp"

namespace fast_momentum {

// What several say: the last of the errors, a paper, and how examples begin.
#define SUTSKEVER                                                                                         \
    "\nReferences\n----------\n"                                                                          \
    ".. [1] Sutskever, I., Martens, J., Dahl, G., Hinton, G., \"On the importance of initialization and " \
    "momentum in deep\n   learning\", ICML 2013.\n"
#define EXAMPLES "\nExamples\n--------\n>>> import numpy as np\n>>> import fast_momentum as fm\n"
#define ANOTHER_THREAD "ConcurrentStepError\n    Another thread is using this state.\n"

// What a function that makes a State says: its own part before the parameters and its own part at the end.
// The rest is made of the rows of its settings, or the same for all.
struct MakerDoc {
    const char *made_by, *formula, *references_and_example;
};
constexpr MakerDoc maker_docs[] = {
    {"init", R"doc(Return a `State` with one zero velocity for each array of `params`.

With ``d`` the gradient (negated if `maximize`), plus ``weight_decay*p`` if the decay is coupled, a step is::

    lr_outside   v = momentum*v + (1-dampening)*d     u = d + momentum*v               p = p - lr*u
    lr_inside    v = momentum*v + lr*d                u = lr*d + momentum*v            p = p - u
    ema          v = momentum*v + (1-momentum)*d      u = (1-momentum)*d + momentum*v  p = p - lr*u

where ``u`` is ``v`` unless `nesterov`. In lr_outside the first step of each array is ``v = 0*v + d``. The velocity holds
a sum of gradients (lr_outside: PyTorch, optax), the last displacement (lr_inside: Keras, scikit-learn), or a moving
average of gradients (ema).
)doc",
     R"doc(
References
----------
.. [1] Polyak, B. T., "Some methods of speeding up the convergence of iteration methods", 1964.
.. [2] Sutskever, I., Martens, J., Dahl, G., Hinton, G., "On the importance of initialization and momentum in deep
   learning", ICML 2013.
.. [3] Kahan, W., "Further remarks on reducing truncation errors", 1965 (`compensated`).
)doc" EXAMPLES R"doc(>>> params = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}
>>> state = fm.init(params, lr=0.1, nesterov=True, weight_decay={"w": 1e-4, "b": 0.0})
>>> state
<State lr_outside, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=per array, nesterov, 2 arrays, 9 elements, 0 steps>
)doc"},
    {"qhm",
     R"doc(Return a `State` for quasi-hyperbolic momentum, with one zero velocity for each array of `params`.

With ``d`` the gradient (negated if `maximize`), plus ``weight_decay*p`` if the decay is coupled, a step is::

    v = momentum*v + (1-momentum)*d
    u = (1-nu)*d + nu*v
    p = p - lr*u
)doc",
     R"doc(
References
----------
.. [1] Ma, J., Yarats, D., "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019.
)doc" EXAMPLES R"doc(>>> w = np.ones(2)
>>> state = fm.qhm(w, lr=0.5, momentum=0.5, nu=0.5)
>>> fm.step(w, np.ones(2), state)
>>> w
array([0.625, 0.625])
>>> state
<State qhm, lr=0.5, momentum=0.5, nu=0.5, weight_decay=0.0, 1 array, 2 elements, 1 step>
)doc"},
    {"adam",
     R"doc(Return a `State` for Adam, AdamW, NAdam or AMSGrad, with two zero moments for each array of `params`.

With ``d`` the gradient (negated if `maximize`), plus ``weight_decay*p`` if the decay is coupled, and ``t`` the number
of steps that the array has made, this one included, a step is::

    v = beta1*v + (1-beta1)*d
    s = beta2*s + (1-beta2)*d*d
    p = p - size*v / (sqrt(s)*correction + eps)

    corrected        size = lr/(1-beta1**t)                        correction = 1/sqrt(1-beta2**t)
    folded           size = lr*sqrt(1-beta2**t)/(1-beta1**t)       correction = 1
    folded_float64   the same; for float32, ``size*v``, the quotient and the difference are float64
    uncorrected      size = lr                                     correction = 1

The first is that of the paper's algorithm, PyTorch and optax; the second, of its section 2, that of TensorFlow, Keras
and scikit-learn (in float32 the third, as NumPy makes it where lr is a numpy.float64); the last that of FedAdam as
published.

AdamW is ``decoupled_weight_decay=True``. With `amsgrad` (not in the form folded_float64), the largest ``s`` so
far takes its place in the last line.
NAdam is ``nesterov=True``, in the form corrected alone: with ``size = lr``, the place of ``v`` is taken by ::

    u = (1-beta1)/(1-beta1**t)*d + beta1/(1-beta1**(t+1))*v

and with `momentum_decay` by the same of a beta1 that grows, ``beta1*(1 - 0.5*0.96**(t*momentum_decay))`` in step t,
with products over all steps for its powers.
)doc",
     R"doc(
References
----------
.. [1] Kingma, D. P., Ba, J., "Adam: a method for stochastic optimization", ICLR 2015.
.. [2] Loshchilov, I., Hutter, F., "Decoupled weight decay regularization", ICLR 2019.
.. [3] Dozat, T., "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.
.. [4] Reddi, S. J., Kale, S., Kumar, S., "On the convergence of Adam and beyond", ICLR 2018.
)doc" EXAMPLES R"doc(
The first step is lr in the direction of the sign, whatever the size of the gradient.

>>> w = np.ones(3)
>>> state = fm.adam(w, lr=0.25, eps=0.0)
>>> fm.step(w, np.array([1e-9, -1.0, 1e9]), state)
>>> w
array([0.75, 1.25, 0.75])
>>> state.second_moment
array([1.e-21, 1.e-03, 1.e+15])
)doc"},
    {"lion",
     R"doc(Return a `State` for Lion, with one zero velocity for each array of `params`.

With ``d`` the gradient (negated if `maximize`), plus ``weight_decay*p`` if the decay is coupled, a step is::

    u = sign(beta1*v + (1-beta1)*d)
    v = beta2*v + (1-beta2)*d
    p = p - lr*u

The sign of zero is zero, that of NaN is NaN. The paper has a decoupled weight decay.
)doc",
     R"doc(
References
----------
.. [1] Chen, X., et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023.
)doc" EXAMPLES R"doc(>>> w = np.ones(3)
>>> fm.step(w, np.array([0.1, -20.0, 0.0]), fm.lion(w, lr=0.25))
>>> w
array([0.75, 1.25, 1.  ])
)doc"},
    {"signum",
     R"doc(Return a `State` for Signum, with one zero velocity for each array of `params`.

With ``d`` the gradient (negated if `maximize`), plus ``weight_decay*p`` if the decay is coupled, a step is::

    v = momentum*v + (1-momentum)*d
    p = p - lr*sign(v)

The sign of zero is zero, that of NaN is NaN. With momentum 0 it is sign descent.
)doc",
     R"doc(
References
----------
.. [1] Bernstein, J., Wang, Y.-X., Azizzadenesheli, K., Anandkumar, A., "signSGD: compressed optimisation for
   non-convex problems", ICML 2018.
)doc" EXAMPLES R"doc(>>> w = np.ones(3)
>>> fm.step(w, np.array([0.1, -20.0, 0.0]), fm.signum(w, lr=0.25))
>>> w
array([0.75, 1.25, 1.  ])
)doc"},
    {"rmsprop",
     R"doc(Return a `State` for RMSprop, with zero moments for each array of `params`.

With ``d`` the gradient (negated if `maximize`), plus ``weight_decay*p`` if the decay is coupled, a step is::

    s = rho*s + (1-rho)*d*d

    lr_outside   v = momentum*v + d/(sqrt(s) + eps)           p = p - lr*v
    lr_inside    v = momentum*v + lr*d/sqrt(s + eps)          p = p - v

The first is that of PyTorch, the second that of TensorFlow and Keras. With momentum 0, ``v`` is what stands
after the plus sign, and the velocity stays as it is. If `centered`, ::

    a = rho*a + (1-rho)*d

is kept, too, and ``s - a*a`` takes the place of ``s`` under the root.
)doc",
     R"doc(
References
----------
.. [1] Tieleman, T., Hinton, G., "Lecture 6.5: RMSprop", Neural networks for machine learning, 2012.
.. [2] Graves, A., "Generating sequences with recurrent neural networks", 2013 (`centered`).
)doc" EXAMPLES R"doc(>>> w = np.ones(2)
>>> fm.step(w, np.array([1e-3, -1e3]), fm.rmsprop(w, lr=0.1, rho=0.75, eps=0.0))
>>> w
array([0.8, 1.2])
)doc"},
    {"accelerated",
     R"doc(Return a `State` for Nesterov's accelerated method, FISTA with a proximal map among its forms.

The parameters are ``y``, the points at which gradients are to be taken; the answer is `State.iterate`, ``x``, which
begins as a copy of them. With ``d`` the gradient at y (negated if `maximize`), plus ``weight_decay*y`` if the decay is
coupled, step k is::

    x_new = prox(y - lr*d)
    y = x_new + b*(x_new - x)
    x = x_new

    fista       b = (t-1)/t_next     t_next = (1 + sqrt(1 + 4*t*t))/2, from t = 1 on
    nesterov    b = (k-1)/(k+2)

where prox is the soft threshold ``sign(z)*max(abs(z) - lr*l1, 0)`` and then the box from `lower` to `upper`, which ``y``
may leave; or a function of your own (`step`). With lr at most one over the largest curvature of what has the gradient,
its value at x, plus ``l1*sum(abs(x))``, is above the least one by a multiple of ``1/k**2`` at most where both are convex.
)doc",
     R"doc(
References
----------
.. [1] Nesterov, Y., "A method of solving a convex programming problem with convergence rate O(1/k^2)", Soviet
   Mathematics Doklady 27, 1983.
.. [2] Beck, A., Teboulle, M., "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM
   Journal on Imaging Sciences 2(1), 2009.
.. [3] O'Donoghue, B., Candes, E., "Adaptive restart for accelerated gradient schemes", Foundations of Computational
   Mathematics 15, 2015 (`restart`).
)doc" EXAMPLES R"doc(
The least of ``(x - 3)**2/2 + abs(x)`` is at 2.

>>> y = np.zeros(1)
>>> state = fm.accelerated(y, lr=0.5, l1=1.0)
>>> for _ in range(60):
...     fm.step(y, y - 3, state)
>>> state.iterate.round(6)
array([2.])
)doc"},
};

constexpr const char* before_parameters_doc = R"doc(
What training loops do before and after it can be part of the same pass over memory: a gradient ``g`` is scaled
(`step`), looked at (`nonfinite`) and clipped before it enters the formula, and the parameters are held in a box and averaged
after it::

    g = grad_scale*g
    g = min(max(g, -clip_value), clip_value)    or    g = min(1, clip_norm/norm)*g,  norm = global_norm(g)
    p = min(max(p, lower), upper)
    average = average_decay*average + (1-average_decay)*p

Parameters
----------
params : ndarray, or list, tuple, dict or dataclass of them, nested
    Arrays of any shape, float32, float64, complex64, complex128, float16, or the bfloat16 of ml_dtypes. Their
    structure, shapes and dtypes are read; nothing is kept, but for a copy in float32 of those in float16 and bfloat16
    (see Notes).
)doc";

constexpr const char* after_parameters_doc = R"doc(
Returns
-------
State
    Its attributes are the keyword parameters above. They can be set between steps, but for
    )doc";

constexpr const char* after_returns_doc = R"doc(.

Raises
------
TypeError
    An item of `params` is not an array of such a dtype, or a hyperparameter is not of the type above.
ValueError
    A hyperparameter is out of range, becomes 0, infinite or, below 1, 1 when rounded to the dtype of an array, or
    would have no effect, like nesterov with momentum 0.

Notes
-----
A *prefix* of `params` is a list, tuple or dict like `params` at each level, down to numbers. A number holds for all
arrays below its place: ``weight_decay={"w": 1e-4, "b": 0.0}``.

A complex array is stepped as two real ones, its real and its imaginary parts, to the bit. Its gradient is
``df/d(real) + 1j*df/d(imag)``, as PyTorch has it; that of JAX and autograd is the conjugate. `clip_norm` sees moduli.

Arrays of float16 and bfloat16 are worked on in float32. With ``compensated=False`` the state holds a float32 copy of
each, its master, which steps; the array is that rounded, and where somebody has changed it since, the master follows.
With int8, each 256 elements share a scale, the 127th part of the largest magnitude among them; where one of them is
NaN or infinite, all are NaN.
)doc";

constexpr const char* second_moment_doc = R"doc(
A step changes the second moment by a thousandth, say, and rounding to bfloat16 would undo that. So it is rounded up
and down in turns (`fast_momentum.reference.dither`), for which int8, with one scale for many, is not fine
enough: it is refused. In float16 it is infinite where gradients are above 256, which stand still then, and too large where they are below 2.4e-4.
)doc";

constexpr const char* step_doc =
    R"doc(step(params, grads, state, *, grad_scale=1.0, zero_grads=False, prox=None)
--

Make one step: update `params` and `state` in place.

For each array, elementwise, with every operation rounded once to the array's dtype, by the formula of the function
that has made the state; here that of `init` without options::

    v = momentum*v + grad
    p = p - lr*v

Parameters
----------
params : ndarray, or list, tuple, dict or dataclass of them, nested
    The structure, shapes and dtypes given to `init`. Updated in place, whatever their strides. Writable, aligned,
    in native byte order; no element may share memory with another one, of any array. That these are the arrays given
    to `init` is not checked, and they need not be.
grads : same structure as `params`
    The gradients, of the same shapes and dtypes, or of float16 or bfloat16 where the parameter is worked on in float32;
    lists and tuples match each other, dicts and dataclasses match by key. Not modified (but see `zero_grads`), and may be read-only,
    broadcast or given twice. A NumPy scalar will do for a 0-d array. None leaves an array (writable all the same), its
    velocity and its first step as they are; a call with nothing but None counts as a step. `Rows` steps some rows alone.
state : State
    From `init`. Its velocities, its average and its counters are updated.
grad_scale : float, default 1.0
    Finite, above 0. Gradients are multiplied by it before anything else, as in ``1/loss_scale``.
zero_grads : bool, default False
    Fill the gradients with zeros afterwards, also where the step was skipped. They are written then: they must be
    writable arrays, each given once, that share no memory.
prox : callable, optional
    Of an `accelerated` state without l1 and bounds: the proximal map, of a function times lr. It is called as
    ``prox(candidate)`` with new arrays in containers like `params` (None where the gradient is None), which it changes
    in place; it returns None. Nothing has been written by then, so an exception in it loses nothing.

Raises
------
TypeError
    An item is not a plain array of the dtype given to `init`, or a container is of another kind.
ValueError
    Keys, lengths or shapes differ, an array is read-only or misaligned, arrays overlap, or hyperparameters that
    were set since do not go together.
NonFiniteGradientError
    With ``nonfinite='raise'``, a gradient has a NaN or an infinity after it was scaled.
)doc" ANOTHER_THREAD R"doc(
Notes
-----
Whatever is raised, nothing has been written. The result equals that of `fast_momentum.reference.step` bit
for bit. From 1 MiB moved the GIL is released. Resizing an array in another thread meanwhile is not guarded
against.
)doc" SUTSKEVER EXAMPLES R"doc(>>> w = np.ones(3)
>>> state = fm.init(w, lr=0.1, momentum=0.9)
>>> fm.step(w, np.ones(3), state)
>>> fm.step(w, np.ones(3), state)
>>> w
array([0.71, 0.71, 0.71])
>>> state.velocity
array([1.9, 1.9, 1.9])
)doc";

constexpr const char* rows_doc = R"doc(Rows(indices, values)
--

The gradient of some rows of an array, as a leaf of the `grads` of `step`::

    grad[indices[i]] = values[i]        those of equal indices added up in their order

Only these rows of the parameter, and of what the state keeps for it, are read and written: no weight decay and no
decay of the velocity happen to the others. The gradients of one row are added up in the dtype that the array is worked
on in, with one rounding an addition, before anything else happens to them; clipping sees the sums. The number of steps
that decides about a first step and about corrections is that of the array. There must be no `average_decay`, no
compensation and no velocities in int8.

Parameters
----------
indices : ndarray
    Of one dimension and any integer dtype, from 0 to below ``len(param)``, in any order. They are copied and checked
    before anything is written. Empty ones make a step of nothing.
values : ndarray
    Of the shape ``(len(indices), *param.shape[1:])``, any strides, and a dtype that a gradient of the parameter may
    have. `zero_grads` fills them with zeros.

Notes
-----
The two arrays are looked at by `step`, and are not copied before. TensorFlow and PyTorch's SparseAdam step rows alone,
too, under the name of lazy updates.

Examples
--------
>>> import numpy as np
>>> import fast_momentum as fm
>>> table = np.zeros((4, 2))
>>> state = fm.init(table, lr=1.0)
>>> fm.step(table, fm.Rows(np.array([3, 0, 3]), np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])), state)
>>> table
array([[-2., -2.],
       [ 0.,  0.],
       [ 0.,  0.],
       [-5., -5.]])
)doc";

constexpr const char* lookahead_doc = R"doc(lookahead(params, state, out=None)
--

Return the point at which Nesterov's original form takes the gradient::

    p - c*v        c = lr*momentum (form lr_inside: momentum), formed in double and rounded once

A gradient taken there and a plain step make a step of Nesterov's method. (``nesterov=True`` is the same iteration
in other variables: its parameters are the look-ahead points.) Weight decay is not anticipated.

Parameters
----------
params : ndarray, or list, tuple, dict or dataclass of them, nested
    As in `step`; read-only arrays will do. Not modified.
state : State
    From `init`, with nesterov False. Not modified.
out : same structure as `params`, optional
    Arrays to write to, of the same shapes and dtypes, that share no memory with `params` or the velocities.

Returns
-------
same structure as `params`
    `out`, or new arrays in the containers given to `init`.

Raises
------
TypeError, ValueError, ConcurrentStepError
    As in `step`; also where ``state.nesterov`` is True. Nothing has been written.

References
----------
.. [1] Nesterov, Y., "A method of solving a convex programming problem with convergence rate O(1/k^2)", 1983.
)doc" EXAMPLES R"doc(>>> w = np.array([4.0])
>>> state = fm.init(w, lr=0.25, momentum=0.5)
>>> for _ in range(2):
...     point = fm.lookahead(w, state)
...     fm.step(w, 2 * point, state)
>>> w
array([0.5])
)doc";

constexpr const char* state_doc =
    R"doc(The hyperparameters, velocities and counters of one training run; `init`, `adam` and
their like return it.

The attributes are the keyword parameters of that function, which has the formula, plus `rule`, `step_count`,
`skipped_steps`, `grad_norm`, `average`, and what the rule keeps: `velocity`, `second_moment`.
Hyperparameters can be set between steps. Each is checked when it is set, how they go together at the next step; a
prefix is set anew as a whole. copy, deepcopy and pickle make States that are independent of the original.

Raises
------
ConcurrentStepError
    It is being used by another thread. Hyperparameters may be set and velocities read all the same, but for
    those that are stored as another dtype.
)doc" EXAMPLES R"doc(>>> w = np.zeros(2)
>>> state = fm.init(w, lr=0.1)
>>> for t in range(3):
...     state.lr = 0.1 / (1 + t)
...     fm.step(w, np.ones(2), state)
>>> state.step_count
3
)doc";

constexpr const char* rule_doc =
    "The name of the rule: 'momentum', 'qhm', 'adam', 'lion', 'signum', 'rmsprop' or 'accelerated'; fixed "
    "when "
    "the State is made.";
constexpr const char* step_count_doc = "The number of steps made.";
constexpr const char* skipped_steps_doc =
    "The number of steps that were left out because a gradient was not finite.";
constexpr const char* grad_norm_doc =
    "The norm of all gradients of the last step, scaled and not yet clipped; None where `clip_norm` was.";

constexpr const char* swap_average_doc = R"doc(swap_average(self, params)
--

Exchange the values of `params` and of the average, in place::

    p, average = average, p

So a model can be evaluated with its average; a second call takes it back, to the same bits (but for the payload of
NaNs). In between no step can be made.

Parameters
----------
params : same structure as in `init`
    As in `step`. Updated in place.

Raises
------
TypeError, ValueError
    As in `step`; also where there is no average. Nothing has been written.
)doc" ANOTHER_THREAD EXAMPLES R"doc(>>> w = np.ones(2)
>>> state = fm.init(w, lr=0.5, average_decay=0.5)
>>> fm.step(w, np.ones(2), state)
>>> state.swap_average(w)
>>> w
array([0.75, 0.75])
>>> state.swap_average(w)
>>> w
array([0.5, 0.5])
)doc";

constexpr const char* state_dict_doc = R"doc(state_dict(self)
--

Return a copy of everything, in plain containers.

Returns
-------
dict
    ``{"format": 5, "rule": str, "form": str, "velocity_dtype": str or None, "compensated": bool, "step_count": int,
    "skipped_steps": int, "grad_norm": float or None, "swapped": bool, "hyperparameters": {name: value},
    "velocity": {path: array}, "steps": {path: int}, "average": {path: array}, "compensation": {path: array},
    "master": {path: array}}``, of other rules also what they keep, such as "second_moment", what is fixed, such as
    "amsgrad", and in `adam` the product of the beta1 of each step, "momentum_products"; with paths as
    ``['encoder'][2]``, and ``''`` for a single array. The arrays have the
    dtype of their parameter, or float32 where that has 16 bits; what a state does not have is an empty dict. The
    parameters are not in it.

Raises
------
)doc" ANOTHER_THREAD EXAMPLES R"doc(>>> fm.init([np.zeros(2)], lr=0.1).state_dict()["velocity"]
{'[0]': array([0., 0.])}
)doc";

constexpr const char* load_state_dict_doc = R"doc(load_state_dict(self, state_dict, strict=True)
--

Take over everything from a `state_dict`, hyperparameters too, after checking all of it.

Parameters
----------
state_dict : dict
    As `state_dict` returns it, also of format 1. Its form, velocity_dtype, compensated, paths, shapes and dtypes must
    be those of this state, and the velocity of an array that has not started must be zero. Copied into the arrays of
    this state, and rounded to what they are stored as.
strict : bool, default True
    If False, arrays that `state_dict` lacks stay as they are. A hyperparameter given per array must still have a
    number for each, and both or none must have an average, swapped or not.

Raises
------
TypeError, ValueError
    What does not agree. Nothing has been changed.
)doc" ANOTHER_THREAD EXAMPLES R"doc(>>> w = np.zeros(2)
>>> state, resumed = fm.init(w, lr=0.1), fm.init(w, lr=1.0)
>>> fm.step(w, np.ones(2), state)
>>> resumed.load_state_dict(state.state_dict())
>>> resumed.lr, resumed.step_count, resumed.velocity
(0.1, 1, array([1., 1.]))
)doc";

constexpr const char* reset_doc = R"doc(reset(self, path=None)
--

Set velocities and moments to zero and forget the steps of their arrays. Compensations become zero, too; counters,
hyperparameters and the average stay.

Parameters
----------
path : str, optional
    The path of one array, as in ``state_dict()["velocity"]``; all arrays if None.

Raises
------
TypeError, ValueError
    There is no such path.
)doc" ANOTHER_THREAD EXAMPLES R"doc(>>> params = {"w": np.zeros(2), "b": np.zeros(1)}
>>> state = fm.init(params, lr=0.1)
>>> fm.step(params, {"w": np.ones(2), "b": np.ones(1)}, state)
>>> state.reset("['w']")
>>> state.velocity["w"], state.velocity["b"]
(array([0., 0.]), array([1.]))
)doc";

constexpr const char* to_form_doc = R"doc(to_form(self, form)
--

Return a State of another form that goes on with the same steps.

With ``m = momentum`` and ``t = dampening``, which becomes 0::

    from lr_outside to   lr_inside   lr' = (1-t)*lr             v' = lr*v
                         ema         lr' = (1-t)/(1-m)*lr       v' = (1-m)/(1-t)*v

and back likewise, with t = 0. A decoupled weight decay changes so that ``lr*weight_decay`` stays. In `adam` nothing
changes: the forms folded and folded_float64 make the same steps up to rounding, and with eps 0 corrected does, too.
`fast_momentum.theory.convert` is the same for hyperparameters alone.

Parameters
----------
form : {'lr_outside', 'lr_inside', 'ema'}, or {'corrected', 'folded', 'folded_float64'}
    The form to have, of momentum or Adam.

Returns
-------
State
    Independent of this one, which is not modified; of its own form, a copy. Its steps are the same up to rounding
    while lr and momentum stay.

Raises
------
ValueError
    The form is unknown, or its steps are others; or lr is 0 and the velocity would have no finite value; or an
    array with dampening has made
    no step, as its first one is not damped; or a converted number is out of range.
)doc" ANOTHER_THREAD SUTSKEVER EXAMPLES R"doc(>>> w = np.ones(2)
>>> state = fm.init(w, lr=0.5, momentum=0.75)
>>> fm.step(w, np.ones(2), state)
>>> other = state.to_form("ema")
>>> other.lr, other.velocity
(2.0, array([0.25, 0.25]))
)doc";

constexpr const char* set_lr_doc = R"doc(set_lr(self, lr, rescale_velocity=True)
--

Set lr, and make the velocity one of gradients that all came in at the new lr.

In the form lr_inside, where the velocity holds displacements made at the old lr, this is momentum correction [1]_::

    v = v * (lr_new / lr_old)

so that it goes on as lr_outside would, but that at lr 0 the velocity is lost. In the other forms the velocity is free of
lr, and stays.

Parameters
----------
lr : float, or prefix of params
    As in `init`.
rescale_velocity : bool, default True
    False is the same as ``state.lr = lr``.

Raises
------
TypeError, ValueError
    `lr` is not as in `init`, or the old lr is 0 and a velocity of the form lr_inside is not. Nothing has been changed.
)doc" ANOTHER_THREAD R"doc(
Notes
-----
In lr_inside the velocities are copied, multiplied and copied back, while no other call may use the state. Elsewhere they
stay, and lr may be set while a step runs, which counts from the next one.

References
----------
.. [1] Goyal, P., et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.1, remark 2.
)doc" EXAMPLES R"doc(>>> w = np.zeros(1)
>>> state = fm.init(w, lr=0.1, form="lr_inside")
>>> fm.step(w, np.ones(1), state)
>>> state.set_lr(0.01)
>>> fm.step(w, np.ones(1), state)
>>> w
array([-0.119])
)doc";

constexpr const char* global_norm_doc = R"doc(global_norm(grads)
--

Return the Euclidean norm of all arrays together::

    sqrt(sum of g**2 over all elements of all arrays)

It is summed in double precision, in an order of its own (blocks of 4096 elements, 16 sums in each, added up as a
tree), so that it is the same for any number of threads and any instruction set. It neither overflows nor underflows
where the norm itself does not.

Parameters
----------
grads : ndarray, or list, tuple, dict or dataclass of them, nested
    Arrays of float32, float64, float16 or bfloat16, of any shapes and strides. None is left out. Not modified.

Returns
-------
float
    NaN or infinite if an element is.

Raises
------
TypeError, ValueError
    An item is no such array, or misaligned.
)doc" EXAMPLES R"doc(>>> fm.global_norm({"w": np.full((2, 2), 2e200), "b": np.zeros(3, np.float32)})
4e+200
)doc";

constexpr const char* non_finite_gradient_error_doc =
    R"doc(A gradient has a NaN or an infinity, and the state was told to raise; nothing has been written.

The message names the array, the first place, and the counts.
)doc" EXAMPLES R"doc(>>> state = fm.init(np.zeros(2), lr=0.1, nonfinite="raise")
>>> try:
...     fm.step(np.zeros(2), np.array([1.0, np.nan]), state)
... except fm.NonFiniteGradientError as error:
...     print(error)
grads must be finite, not nan at (1,); 1 nan and 0 inf in 1 of 1 arrays; lower lr or the loss scale, or set nonfinite
)doc";

constexpr const char* get_num_threads_doc = R"doc(get_num_threads()
--

Return the number of threads asked for with `set_num_threads` or FAST_MOMENTUM_NUM_THREADS; 1 by default.
``show_config("dicts")["usable threads"]`` is how many of them a step can use at most.

Examples
--------
>>> import fast_momentum as fm
>>> fm.get_num_threads()
1
)doc";

constexpr const char* set_num_threads_doc = R"doc(set_num_threads(threads)
--

Let a step use up to `threads` threads; the bits do not depend on it.

A step uses as many of them as OpenMP, the CPU affinity and the cgroup quota of the process allow, and one where it is
too small to gain. Beside a NumPy that runs BLAS on all cores, more than one makes whole training loops slower.

Parameters
----------
threads : int
    At least 1. More than the machine has is no error.

Raises
------
TypeError, ValueError
    `threads` is not an integer, or below 1.

Examples
--------
>>> import fast_momentum as fm
>>> fm.set_num_threads(1)
)doc";

constexpr const char* concurrent_step_error_doc =
    "A State was to be used while another thread was using it. Nothing was changed.";

// Such as init(params, *, lr, momentum=0.9)
std::string signature_of(const Rule& rule);
// Of an attribute of State.
std::string attribute_doc(const Setting& setting);
// Signature and docstring of the function that makes a State of the rule.
std::string maker_doc(const Rule& rule);

}  // namespace fast_momentum
