#include "plain/coefficients.hpp"

namespace fast_momentum {

Coefficients coefficients(Form form, const Numbers& h, const Flags& flags, bool first) {
    Coefficients c{};
    c.sign = flags.maximize ? -1 : 1;
    c.keep = c.carried = h.momentum;
    c.scale = h.lr;
    c.ahead = lookahead_has_lr(form) ? h.lr * h.momentum : h.momentum;
    switch (form) {
        case Form::lr_outside:
            c.keep = first ? 0 : h.momentum;
            c.gain = first ? 1 : 1 - h.dampening;
            c.direct = 1;
            break;
        case Form::lr_inside:
            c.gain = c.direct = h.lr;
            c.scale = 1;
            break;
        case Form::ema:
            c.gain = c.direct = 1 - h.momentum;
            break;
    }
    if (flags.nesterov) c.variant |= Term::nesterov;
    if (h.weight_decay != 0 && flags.decoupled_weight_decay) {
        c.decay = h.lr * h.weight_decay;
        c.variant |= Term::decoupled_decay;
    } else if (h.weight_decay != 0) {
        c.weight_decay = h.weight_decay;
        c.variant |= Term::coupled_decay;
    }
    return c;
}

}  // namespace fast_momentum
