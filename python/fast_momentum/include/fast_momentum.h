/* The kernels of fast_momentum for C and C++: one contiguous array at a time, with the bits of step().
 *
 * C99. Include Python.h first; without it there is everything but fast_momentum_import().
 *
 * No function needs the GIL, starts a thread, allocates memory or raises an exception. Each but message()
 * returns FAST_MOMENTUM_OK or the code of what is wrong, and then nothing was written. Calls from several
 * threads at once may share whatever none of them writes.
 */
#ifndef FAST_MOMENTUM_H
#define FAST_MOMENTUM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes only with what breaks programs that are compiled already; those of ABI 1 go on running. */
#define FAST_MOMENTUM_ABI_VERSION 2

/* A rule, of which those of momentum are its forms. With d the gradient: */
enum {
    FAST_MOMENTUM_LR_OUTSIDE = 0, /* v = momentum*v + (1 - dampening)*d,  p = p - lr*v;  first v = d */
    FAST_MOMENTUM_LR_INSIDE = 1,  /* v = momentum*v + lr*d,               p = p - v */
    FAST_MOMENTUM_EMA = 2,        /* v = momentum*v + (1 - momentum)*d,   p = p - lr*v */
    FAST_MOMENTUM_QHM = 3         /* v = momentum*v + (1 - momentum)*d,   p = p - lr*((1 - nu)*d + nu*v) */
};

/* A form of adam(). With t the steps of the array, this one included, and q = s:
 *     v = beta1*v + (1 - beta1)*d,  s = beta2*s + (1 - beta2)*(d*d)
 *     p = p - scale*v/(sqrt(q)*correction + eps) */
enum {
    FAST_MOMENTUM_ADAM_CORRECTED = 4,      /* scale = lr/(1 - beta1**t),  correction = 1/sqrt(1 - beta2**t) */
    FAST_MOMENTUM_ADAM_FOLDED = 5,         /* scale = lr*sqrt(1 - beta2**t)/(1 - beta1**t),  correction = 1 */
    FAST_MOMENTUM_ADAM_FOLDED_FLOAT64 = 6, /* the same, from scale*v on in float64 */
    FAST_MOMENTUM_ADAM_UNCORRECTED = 7     /* scale = lr,  correction = 1 */
};

/* Joined by |, or 0. */
enum {
    FAST_MOMENTUM_NESTEROV = 1,
    FAST_MOMENTUM_DECOUPLED_WEIGHT_DECAY = 2,
    FAST_MOMENTUM_MAXIMIZE = 4,
    FAST_MOMENTUM_FIRST = 8,   /* the first step of this array, whose velocity is zero; not in settings */
    FAST_MOMENTUM_AMSGRAD = 16 /* in adam(): q is the largest s so far */
};

/* The numbers that NumPy gives them (NPY_FLOAT32, NPY_FLOAT64). */
enum { FAST_MOMENTUM_FLOAT32 = 11, FAST_MOMENTUM_FLOAT64 = 12 };

/* What a call returns; message() says what each means. */
enum {
    FAST_MOMENTUM_OK = 0,
    FAST_MOMENTUM_BAD_DTYPE = 1,
    FAST_MOMENTUM_BAD_FORM = 2,
    FAST_MOMENTUM_BAD_FLAGS = 3,
    FAST_MOMENTUM_BAD_LR = 4,
    FAST_MOMENTUM_BAD_MOMENTUM = 5,
    FAST_MOMENTUM_BAD_DAMPENING = 6,
    FAST_MOMENTUM_BAD_WEIGHT_DECAY = 7,
    FAST_MOMENTUM_BAD_PRODUCT = 8,
    FAST_MOMENTUM_BAD_LENGTH = 9,
    FAST_MOMENTUM_NULL_POINTER = 10,
    FAST_MOMENTUM_MISALIGNED = 11,
    FAST_MOMENTUM_OVERLAP = 12,
    FAST_MOMENTUM_BAD_NU = 13,
    FAST_MOMENTUM_BAD_SETTINGS = 14,
    FAST_MOMENTUM_BAD_BETA1 = 15,
    FAST_MOMENTUM_BAD_BETA2 = 16,
    FAST_MOMENTUM_BAD_EPS = 17,
    FAST_MOMENTUM_BAD_MAXIMUM = 18
};

/* Of one array. Members are only ever added, at the end, without padding. What a program does not know, as
 * its header is older, is 0, and what fast_momentum does not know must be 0; so must be what the rule does
 * not take, and there are no other defaults. */
typedef struct {
    uint32_t size; /* sizeof(fast_momentum_settings) */
    int32_t rule;
    int64_t flags;
    int64_t steps; /* that the array has made; before the first one, its velocity is zero */
    double lr, momentum, dampening, weight_decay;
    double nu;
} fast_momentum_settings;

/* The same for adam(): a struct of its own, since with momentum Adam shares no number but lr and
 * weight_decay, and neither is to name those of the other. */
typedef struct {
    uint32_t size; /* sizeof(fast_momentum_adam_settings) */
    int32_t form;
    int64_t flags;
    int64_t steps; /* that the array has made; before the first one, its moments are zero */
    double lr, beta1, beta2, eps, weight_decay;
} fast_momentum_adam_settings;

/* Members are only ever added, at the end. Where n is 0, arrays are not looked at, and may be null. */
typedef struct {
    uint32_t struct_size;
    int32_t abi_version;

    /* Update param and velocity, each of n elements that follow one another; grad is read. By a form of
     * momentum; update() takes each rule of fast_momentum_settings. */
    int (*step_float32)(float* param, const float* grad, float* velocity, int64_t n, int form, int flags,
                        double lr, double momentum, double dampening, double weight_decay);
    int (*step_float64)(double* param, const double* grad, double* velocity, int64_t n, int form, int flags,
                        double lr, double momentum, double dampening, double weight_decay);
    int (*step)(int dtype, void* param, const void* grad, void* velocity, int64_t n, int form, int flags,
                double lr, double momentum, double dampening, double weight_decay);

    /* out = the point at which Nesterov's original form takes the gradient; a plain step of param follows. */
    int (*lookahead_float32)(float* out, const float* param, const float* velocity, int64_t n, int form,
                             double lr, double momentum);
    int (*lookahead_float64)(double* out, const double* param, const double* velocity, int64_t n, int form,
                             double lr, double momentum);
    int (*lookahead)(int dtype, void* out, const void* param, const void* velocity, int64_t n, int form,
                     double lr, double momentum);

    /* What a code means, in English; for any int. */
    const char* (*message)(int code);

    /* As step and lookahead, by any rule of the settings. Only momentum has a look-ahead, and not with
     * FAST_MOMENTUM_NESTEROV. */
    int (*update)(const fast_momentum_settings* settings, int dtype, void* param, const void* grad,
                  void* velocity, int64_t n);
    int (*lookahead_with)(const fast_momentum_settings* settings, int dtype, void* out, const void* param,
                          const void* velocity, int64_t n);

    /* As update(), of Adam, AdamW (FAST_MOMENTUM_DECOUPLED_WEIGHT_DECAY) and NAdam (FAST_MOMENTUM_NESTEROV).
     * second_moment_maximum is NULL without FAST_MOMENTUM_AMSGRAD. */
    int (*adam)(const fast_momentum_adam_settings* settings, int dtype, void* param, const void* grad,
                void* velocity, void* second_moment, void* second_moment_maximum, int64_t n);
} fast_momentum_api;

#ifdef Py_PYTHON_H

/* The functions of the fast_momentum that is installed; they stay for as long as the process runs. With the
 * GIL held. NULL with an exception set where it is missing, or does not fit this header. */
static inline const fast_momentum_api* fast_momentum_import(void) {
    const fast_momentum_api* api =
        (const fast_momentum_api*)PyCapsule_Import("fast_momentum._core._C_API_2", 0);
    if (!api && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Format(PyExc_ImportError,
                     "fast_momentum must have ABI version %d, for which this module was compiled; "
                     "upgrade it, or compile this module again",
                     FAST_MOMENTUM_ABI_VERSION);
    if (!api) return NULL;
    if (api->struct_size < sizeof(fast_momentum_api)) {
        PyErr_SetString(PyExc_ImportError,
                        "fast_momentum must not be older than the one whose header this module was compiled "
                        "with; upgrade it");
        return NULL;
    }
    return api;
}

#endif /* Py_PYTHON_H */

#ifdef __cplusplus
}
#endif

#endif /* FAST_MOMENTUM_H */
