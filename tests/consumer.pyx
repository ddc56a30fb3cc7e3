# cython: language_level=3
"""Calls each function of fast_momentum from Cython; test_capi.py builds it. Addresses are integers."""

from libc.stdint cimport int64_t, intptr_t

from fast_momentum cimport cython_momentum as cm


def step_float32(intptr_t param, intptr_t grad, intptr_t velocity, int64_t n, int form, int flags,
                 double lr, double momentum, double dampening, double weight_decay):
    cdef int code
    with nogil:
        code = cm.step_float32(<float *>param, <const float *>grad, <float *>velocity, n, form, flags,
                               lr, momentum, dampening, weight_decay)
    return code


def step_float64(intptr_t param, intptr_t grad, intptr_t velocity, int64_t n, int form, int flags,
                 double lr, double momentum, double dampening, double weight_decay):
    cdef int code
    with nogil:
        code = cm.step_float64(<double *>param, <const double *>grad, <double *>velocity, n, form, flags,
                               lr, momentum, dampening, weight_decay)
    return code


def step(int dtype, intptr_t param, intptr_t grad, intptr_t velocity, int64_t n, int form, int flags,
         double lr, double momentum, double dampening, double weight_decay):
    cdef int code
    with nogil:
        code = cm.step(dtype, <void *>param, <const void *>grad, <void *>velocity, n, form, flags,
                       lr, momentum, dampening, weight_decay)
    return code


def lookahead_float32(intptr_t out, intptr_t param, intptr_t velocity, int64_t n, int form, double lr,
                      double momentum):
    cdef int code
    with nogil:
        code = cm.lookahead_float32(<float *>out, <const float *>param, <const float *>velocity, n, form,
                                    lr, momentum)
    return code


def lookahead_float64(intptr_t out, intptr_t param, intptr_t velocity, int64_t n, int form, double lr,
                      double momentum):
    cdef int code
    with nogil:
        code = cm.lookahead_float64(<double *>out, <const double *>param, <const double *>velocity, n, form,
                                    lr, momentum)
    return code


def lookahead(int dtype, intptr_t out, intptr_t param, intptr_t velocity, int64_t n, int form, double lr,
              double momentum):
    cdef int code
    with nogil:
        code = cm.lookahead(dtype, <void *>out, <const void *>param, <const void *>velocity, n, form,
                            lr, momentum)
    return code


def settings(int rule, int64_t flags, int64_t steps, double lr, double momentum, double dampening,
             double weight_decay, double nu):
    """The bytes of the struct, with its size and all members by name."""
    cdef cm.Settings given = cm.Settings(
        size=sizeof(cm.Settings), rule=rule, flags=flags, steps=steps, lr=lr, momentum=momentum,
        dampening=dampening, weight_decay=weight_decay, nu=nu)
    return (<const char *>&given)[:sizeof(given)]


def update(intptr_t settings, int dtype, intptr_t param, intptr_t grad, intptr_t velocity, int64_t n):
    cdef int code
    with nogil:
        code = cm.update(<const cm.Settings *>settings, dtype, <void *>param, <const void *>grad,
                         <void *>velocity, n)
    return code


def lookahead_with(intptr_t settings, int dtype, intptr_t out, intptr_t param, intptr_t velocity, int64_t n):
    cdef int code
    with nogil:
        code = cm.lookahead_with(<const cm.Settings *>settings, dtype, <void *>out, <const void *>param,
                                 <const void *>velocity, n)
    return code


def adam_settings(int form, int64_t flags, int64_t steps, double lr, double beta1, double beta2, double eps,
                  double weight_decay):
    cdef cm.AdamSettings given = cm.AdamSettings(
        size=sizeof(cm.AdamSettings), form=form, flags=flags, steps=steps, lr=lr, beta1=beta1, beta2=beta2,
        eps=eps, weight_decay=weight_decay)
    return (<const char *>&given)[:sizeof(given)]


def adam(intptr_t settings, int dtype, intptr_t param, intptr_t grad, intptr_t velocity, intptr_t second_moment,
         intptr_t second_moment_maximum, int64_t n):
    cdef int code
    with nogil:
        code = cm.adam(<const cm.AdamSettings *>settings, dtype, <void *>param, <const void *>grad,
                       <void *>velocity, <void *>second_moment, <void *>second_moment_maximum, n)
    return code


def message(int code):
    return cm.message(code).decode()


def fit(double[::1] param, const double[::1] target, int steps):
    """Steps towards the target, without the GIL from the first to the last."""
    grad_, velocity_ = bytearray(8 * len(param)), bytearray(8 * len(param))
    cdef double[::1] grad = memoryview(grad_).cast("d"), velocity = memoryview(velocity_).cast("d")
    cdef int code = cm.OK, t
    cdef Py_ssize_t i
    with nogil:
        for t in range(steps):
            for i in range(param.shape[0]):
                grad[i] = param[i] - target[i]
            code |= cm.step_float64(&param[0], &grad[0], &velocity[0], param.shape[0], cm.EMA, cm.NESTEROV,
                                    0.1, 0.9, 0, 0)
    return code
