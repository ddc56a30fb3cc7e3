// RMSprop, with momentum and centred.
//     d = sign*grad + weight_decay*param
//     s = second_keep*s + second_gain*(d*d)
//     a = second_keep*a + second_gain*d            q = s, or s - a*a
//     x = (gain*d)/(sqrt(q + inner_eps) + eps)
//     v = keep*v + x                               u = v, or x
//     param = param - (scale*u + decay*param)
#pragma once

#include <cstddef>

#include "kernels/compilers.hpp"
#include "kernels/formulas/decay.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

template <class T, unsigned terms>
struct Rmsprop : Decay<T, terms> {
    T keep, gain, second_keep, second_gain, eps, inner_eps, scale;

    explicit Rmsprop(const Coefficients& c)
        : Decay<T, terms>(c),
          keep(T(c.keep)),
          gain(T(c.gain)),
          second_keep(T(c.second_keep)),
          second_gain(T(c.second_gain)),
          eps(T(c.eps)),
          inner_eps(T(c.inner_eps)),
          scale(T(c.scale)) {}

    template <class Slots, class Take>
    INLINED void run(const Slots& as, const T* param, const T* RESTRICT grad, char* const* slots,
                     std::size_t n, const Take& take) const {
        auto* RESTRICT velocity = reinterpret_cast<typename Slots::Item*>(slots[0]);
        auto* RESTRICT second_moment = reinterpret_cast<typename Slots::Item*>(slots[1]);
        auto* RESTRICT mean = reinterpret_cast<typename Slots::Item*>(slots[2]);
        for (std::size_t i = 0; i < n; ++i) {
            const T d = this->direction(param[i], grad[i]);
            const T s = second_keep * as.value(second_moment[i]) + second_gain * (d * d);
            second_moment[i] = as.dithered_item(s);
            T q = s;
            if constexpr (has_term(terms, Term::centered)) {
                const T a = second_keep * as.value(mean[i]) + second_gain * d;
                mean[i] = as.item(a);
                q = s - a * a;
            }
            T u = (gain * d) / (square_root(q + inner_eps) + eps);
            if constexpr (has_term(terms, Term::momentum)) {
                u = keep * as.value(velocity[i]) + u;
                velocity[i] = as.item(u);
            }
            take(i, this->decayed(scale * u, param[i]));
        }
    }
};

template <>
struct Code<Formula::rmsprop> {
    template <class T, unsigned terms>
    using Of = Rmsprop<T, terms>;
};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
