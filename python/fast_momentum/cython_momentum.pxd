# The kernels of fast_momentum for Cython; include/fast_momentum.h has the contract. None of these needs the GIL.
from libc.stdint cimport int32_t, int64_t, uint32_t

cdef enum:
    LR_OUTSIDE = 0
    LR_INSIDE = 1
    EMA = 2
    QHM = 3

cdef enum:
    ADAM_CORRECTED = 4
    ADAM_FOLDED = 5
    ADAM_FOLDED_FLOAT64 = 6
    ADAM_UNCORRECTED = 7

cdef enum:
    NESTEROV = 1
    DECOUPLED_WEIGHT_DECAY = 2
    MAXIMIZE = 4
    FIRST = 8
    AMSGRAD = 16

cdef enum:
    FLOAT32 = 11
    FLOAT64 = 12

cdef enum:
    OK = 0
    BAD_DTYPE = 1
    BAD_FORM = 2
    BAD_FLAGS = 3
    BAD_LR = 4
    BAD_MOMENTUM = 5
    BAD_DAMPENING = 6
    BAD_WEIGHT_DECAY = 7
    BAD_PRODUCT = 8
    BAD_LENGTH = 9
    NULL_POINTER = 10
    MISALIGNED = 11
    OVERLAP = 12
    BAD_NU = 13
    BAD_SETTINGS = 14
    BAD_BETA1 = 15
    BAD_BETA2 = 16
    BAD_EPS = 17
    BAD_MAXIMUM = 18

cdef struct Settings:
    uint32_t size
    int32_t rule
    int64_t flags
    int64_t steps
    double lr, momentum, dampening, weight_decay
    double nu

cdef struct AdamSettings:
    uint32_t size
    int32_t form
    int64_t flags
    int64_t steps
    double lr, beta1, beta2, eps, weight_decay

cdef int step_float32(float *param, const float *grad, float *velocity, int64_t n, int form, int flags,
                      double lr, double momentum, double dampening, double weight_decay) noexcept nogil
cdef int step_float64(double *param, const double *grad, double *velocity, int64_t n, int form, int flags,
                      double lr, double momentum, double dampening, double weight_decay) noexcept nogil
cdef int step(int dtype, void *param, const void *grad, void *velocity, int64_t n, int form, int flags,
              double lr, double momentum, double dampening, double weight_decay) noexcept nogil

cdef int lookahead_float32(float *out, const float *param, const float *velocity, int64_t n, int form,
                           double lr, double momentum) noexcept nogil
cdef int lookahead_float64(double *out, const double *param, const double *velocity, int64_t n, int form,
                           double lr, double momentum) noexcept nogil
cdef int lookahead(int dtype, void *out, const void *param, const void *velocity, int64_t n, int form,
                   double lr, double momentum) noexcept nogil

cdef const char *message(int code) noexcept nogil

cdef int update(const Settings *settings, int dtype, void *param, const void *grad, void *velocity,
                int64_t n) noexcept nogil
cdef int lookahead_with(const Settings *settings, int dtype, void *out, const void *param,
                        const void *velocity, int64_t n) noexcept nogil

cdef int adam(const AdamSettings *settings, int dtype, void *param, const void *grad, void *velocity,
              void *second_moment, void *second_moment_maximum, int64_t n) noexcept nogil
