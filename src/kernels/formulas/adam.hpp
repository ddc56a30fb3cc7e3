// Adam, with its Nesterov step and AMSGrad.
//     d = sign*grad + weight_decay*param
//     v = keep*v + gain*d
//     s = second_keep*s + second_gain*(d*d)        q = s, or the largest s so far
//     u = direct*d + carried*v
//     param = param - ((scale*u)/(sqrt(q)*correction + eps) + decay*param)
// In Wide are: scale and what it is multiplied with, all after that, and the sum, which is rounded to T once.
#pragma once

#include <cstddef>

#include "kernels/compilers.hpp"
#include "kernels/formulas/decay.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

template <class T, class Wide, unsigned terms>
struct Adam : Decay<T, terms> {
    T keep, gain, second_keep, second_gain, direct, carried, correction, eps;
    Wide scale;

    explicit Adam(const Coefficients& c)
        : Decay<T, terms>(c),
          keep(T(c.keep)),
          gain(T(c.gain)),
          second_keep(T(c.second_keep)),
          second_gain(T(c.second_gain)),
          direct(T(c.direct)),
          carried(T(c.carried)),
          correction(T(c.correction)),
          eps(T(c.eps)),
          scale(Wide(c.scale)) {}

    // A block: take(i, displacement) after each element's slots were made.
    template <class Slots, class Take>
    INLINED void run(const Slots& as, const T* param, const T* RESTRICT grad, char* const* slots,
                     std::size_t n, const Take& take) const {
        auto* RESTRICT velocity = reinterpret_cast<typename Slots::Item*>(slots[0]);
        auto* RESTRICT second_moment = reinterpret_cast<typename Slots::Item*>(slots[1]);
        auto* RESTRICT maximum = reinterpret_cast<typename Slots::Item*>(slots[2]);
        for (std::size_t i = 0; i < n; ++i) {
            const T d = this->direction(param[i], grad[i]);
            const T v = keep * as.value(velocity[i]) + gain * d;
            const T s = second_keep * as.value(second_moment[i]) + second_gain * (d * d);
            velocity[i] = as.item(v);
            second_moment[i] = as.dithered_item(s);
            T u = v, q = s;
            if constexpr (has_term(terms, Term::nesterov)) u = direct * d + carried * v;
            if constexpr (has_term(terms, Term::amsgrad)) {
                const T before = as.value(maximum[i]);
                q = s > before || s != s ? s : before;
                maximum[i] = as.item(q);
            }
            take(i, this->decayed((scale * u) / (square_root(q) * correction + eps), param[i]));
        }
    }
};

template <>
struct Code<Formula::adam> {
    template <class T, unsigned terms>
    using Of = Adam<T, T, terms>;
};

template <>
struct Code<Formula::wide_adam> {
    template <class T, unsigned terms>
    using Of = Adam<T, double, terms>;
};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
