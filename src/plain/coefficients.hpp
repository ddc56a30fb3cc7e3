// Hyperparameters and form -> the constants of the linear rule; the only place that knows what a form is.
#pragma once

#include "kernels/kernels.hpp"

namespace fast_momentum {

enum class Form { lr_outside, lr_inside, ema };
constexpr unsigned n_forms = 3;
constexpr const char* form_names[n_forms] = {"lr_outside", "lr_inside", "ema"};

constexpr const char* name_of(Form form) {
    return form_names[static_cast<unsigned>(form)];
}

// Hyperparameters of one array.
struct Numbers {
    double lr, momentum, dampening, weight_decay;
};

struct Flags {
    bool nesterov, decoupled_weight_decay, maximize;
};

// Only this form has a first step of its own, and dampening.
constexpr bool has_dampening(Form form) {
    return form == Form::lr_outside;
}

// Nobody has said what a Nesterov step with dampening should be; PyTorch refuses it, too.
constexpr bool excludes_dampening(const Flags& flags) {
    return flags.nesterov;
}

// Whether the look-ahead is lr*momentum*v away; else momentum*v, as the velocity has lr in it.
constexpr bool lookahead_has_lr(Form form) {
    return form != Form::lr_inside;
}

// `first`: whether this is the first step of the array.
Coefficients coefficients(Form form, const Numbers& numbers, const Flags& flags, bool first);

}  // namespace fast_momentum
