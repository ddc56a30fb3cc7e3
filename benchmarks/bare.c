/* The roofline: the traffic of a step and nothing else. No checks, no options, one flat array. */
#include <stddef.h>

#define BARE(name, type)                                                                               \
    void name(type *restrict p, const type *restrict g, type *restrict v, ptrdiff_t n, type m, type lr, \
              int threads) {                                                                           \
        if (threads == 1) {                                                                            \
            for (ptrdiff_t i = 0; i < n; ++i) {                                                        \
                v[i] = m * v[i] + g[i];                                                                \
                p[i] -= lr * v[i];                                                                     \
            }                                                                                          \
            return;                                                                                    \
        }                                                                                              \
        _Pragma("omp parallel for schedule(static) num_threads(threads)")                              \
        for (ptrdiff_t i = 0; i < n; ++i) {                                                            \
            v[i] = m * v[i] + g[i];                                                                    \
            p[i] -= lr * v[i];                                                                         \
        }                                                                                              \
    }

BARE(bare_float32, float)
BARE(bare_float64, double)
