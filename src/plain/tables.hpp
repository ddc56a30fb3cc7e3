// What a State is made of: a row for each setting, which is a keyword of the function that makes it, and a
// row for each slot, which is an array that it keeps for each parameter. Signatures, checks, attributes,
// repr, checkpoints, copies and pickles loop over them. What a rule takes and keeps of them is said in
// rules.cpp.
#pragma once

#include <limits>

namespace fast_momentum {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double none = std::numeric_limits<double>::quiet_NaN();  // where a number may be None

// ---- settings ----

enum class Kind : unsigned char {
    number,  // one for all arrays, or a prefix of params with one for each
    bound,   // the same of numbers and None
    flag,
    option,  // a number or None, for all arrays
    choice,  // a name
    choice_or_none,
    choice_or_number,
    dtype,  // a way to store float32, by name or as what numpy.dtype() takes; or None
};

// What a number must be, in double and rounded to the dtype of an array.
struct Range {
    double low, high;
    bool has_low, has_high;   // whether these belong to it
    const char* requirement;  // follows "<name> must "
    bool is_rounded = true;   // whether an array's dtype has to hold it

    constexpr bool contains(double x) const {  // NaN misses it
        return (x > low || (has_low && x == low)) && (x < high || (has_high && x == high));
    }
};

constexpr Range any_value = {-infinity, infinity, true, true, "be a number"};  // of what is no number
constexpr Range not_negative = {0, infinity, true, false, "be finite and >= 0"};
constexpr Range below_one = {0, 1, true, false, "be in [0, 1)"};
constexpr Range up_to_one = {0, 1, true, true, "be in [0, 1]"};
constexpr Range positive = {0, infinity, false, false, "be finite and above 0"};
constexpr Range lower_bounds = {-infinity, infinity, true, false,
                                "be a number below inf, or None for no bound"};
constexpr Range upper_bounds = {-infinity, infinity, false, true,
                                "be a number above -inf, or None for no bound"};
constexpr Range clip = {0, infinity, false, false, "be finite and above 0, or None for no clipping"};
constexpr Range clip_norms = {0, infinity, false, true, "be above 0, or None for no clipping", false};
constexpr Range average_decays = {0, 1, true, false, "be in [0, 1), or None for no average"};
constexpr Range momentum_decays = {
    0, infinity, true, false, "be finite and >= 0, or None for a constant beta1", false};

enum class Nonfinite : unsigned char { propagate, raise, skip };
constexpr const char* nonfinite_choices[] = {"propagate", "raise", "skip", nullptr};

// As the value of `sequence`, which else is a number of its own: the number of a name.
enum Sequence { fista = -1, nesterov_sequence = -2 };
constexpr const char* sequence_choices[] = {"fista", "nesterov", nullptr};
constexpr const char* restart_choices[] = {"gradient", nullptr};

struct Setting {
    enum Name : unsigned {
        lr,
        momentum,
        dampening,
        nu,
        beta1,
        beta2,
        rho,
        eps,
        nesterov,
        momentum_decay,
        sequence,
        restart,
        l1,
        amsgrad,
        centered,
        weight_decay,
        decoupled_weight_decay,
        maximize,
        form,
        lower,
        upper,
        clip_norm,
        clip_value,
        nonfinite,
        average_decay,
        velocity_dtype,
        compensated,
        n
    };
    Name place;
    const char* name;
    Kind kind;
    const char* fallback;  // as Python has it, where a rule says nothing else; nullptr where it must be given
    Range range;
    bool of_every_rule;
    bool fixed;  // when the State is made
    int since;   // the first format of checkpoints that has it
    const char* doc;
    const char* const* choices = nullptr;  // but for `form`, whose choices are the forms of the rule
};

constexpr bool every_rule = true, some_rules = false, fixed = true, settable = false;

// In the order of the signatures.
constexpr Setting all_settings[] = {
    {Setting::lr, "lr", Kind::number, nullptr, not_negative, every_rule, settable, 1,
     "Learning rate, finite and >= 0. Its unit is that of params per gradient."},
    {Setting::momentum, "momentum", Kind::number, "0.9", below_one, some_rules, settable, 1, "In [0, 1)."},
    {Setting::dampening, "dampening", Kind::number, "0.0", up_to_one, some_rules, settable, 1,
     "In [0, 1]; 0 in the forms lr_inside and ema, and with nesterov."},
    {Setting::nu, "nu", Kind::number, "0.7", up_to_one, some_rules, settable, 3,
     "Share of the velocity in the step, in [0, 1]: with 0 it is plain gradient descent, with 1 the form\n"
     "ema, with momentum the Nesterov step of ema."},
    {Setting::beta1, "beta1", Kind::number, "0.9", below_one, some_rules, settable, 4,
     "Decay of the velocity, in [0, 1); in `lion`, of what the sign is taken of."},
    {Setting::beta2, "beta2", Kind::number, "0.999", below_one, some_rules, settable, 4,
     "Decay of the second moment, in [0, 1); of the velocity in `lion`."},
    {Setting::rho, "rho", Kind::number, "0.99", below_one, some_rules, settable, 4,
     "Decay of the second moment, in [0, 1)."},
    {Setting::eps, "eps", Kind::number, "1e-08", not_negative, some_rules, settable, 4,
     "Finite and >= 0. With 0, an element whose gradients were all zero becomes NaN: it is 0/0."},
    {Setting::nesterov, "nesterov", Kind::flag, "False", any_value, some_rules, settable, 1,
     "Whether the step goes along ``u`` instead of ``v``."},
    {Setting::momentum_decay, "momentum_decay", Kind::option, "None", momentum_decays, some_rules, settable,
     4,
     "Finite and >= 0: how fast beta1 rises to its value in a Nesterov step (0.004 in PyTorch, 1 in Keras).\n"
     "None: it has it from the start (optax)."},
    {Setting::sequence, "sequence", Kind::choice_or_number, "'fista'", below_one, some_rules, fixed, 5,
     "What ``b`` is in step k since the start or the last restart, or a number for all steps, in [0, 1).",
     sequence_choices},
    {Setting::restart, "restart", Kind::choice_or_none, "None", any_value, some_rules, settable, 5,
     "With 'gradient', a step that goes against the one before it, which is where the sum of\n"
     "``(y - x_new)*(x_new - x)`` over all arrays is above 0, ends at ``y = x_new``, and k starts again.",
     restart_choices},
    {Setting::l1, "l1", Kind::number, "0.0", not_negative, some_rules, settable, 5,
     "Weight of the sum of magnitudes in what is minimised, finite and >= 0."},
    {Setting::amsgrad, "amsgrad", Kind::flag, "False", any_value, some_rules, fixed, 4,
     "Whether to divide by the root of the largest second moment so far, which is kept, too."},
    {Setting::centered, "centered", Kind::flag, "False", any_value, some_rules, fixed, 4,
     "Whether to take the square of the mean gradient, which is kept, too, from the second moment."},
    {Setting::weight_decay, "weight_decay", Kind::number, "0.0", not_negative, every_rule, settable, 1,
     "Finite and >= 0."},
    {Setting::decoupled_weight_decay, "decoupled_weight_decay", Kind::flag, "False", any_value, every_rule,
     settable, 1,
     "Whether weight decay leaves the velocity, and all else that is kept, alone, and the step takes\n"
     "``lr*weight_decay*p`` more from the parameters."},
    {Setting::maximize, "maximize", Kind::flag, "False", any_value, every_rule, settable, 1,
     "Whether the step goes along the gradient instead of against it. Decay still shrinks."},
    {Setting::form, "form", Kind::choice, "'lr_outside'", any_value, some_rules, fixed, 1,
     "Which of the formulas above it is."},
    {Setting::lower, "lower", Kind::bound, "None", lower_bounds, every_rule, settable, 5,
     "The least that an element may be: after the step, what is below becomes it. NaN stays, and what is\n"
     "kept, such as velocities, is left as it is."},
    {Setting::upper, "upper", Kind::bound, "None", upper_bounds, every_rule, settable, 5,
     "The most that an element may be, in the manner of `lower`, and not below it."},
    {Setting::clip_norm, "clip_norm", Kind::option, "None", clip_norms, every_rule, settable, 2,
     "Above 0: the largest norm that all gradients together may have. With ``inf`` the norm is\n"
     "taken, and nothing clipped. Not together with `clip_value`."},
    {Setting::clip_value, "clip_value", Kind::option, "None", clip, every_rule, settable, 2,
     "Finite, above 0: the largest magnitude that an element of a gradient may have."},
    {Setting::nonfinite, "nonfinite", Kind::choice, "'propagate'", any_value, every_rule, settable, 2,
     "What to do about a gradient with a NaN or an infinity: use it, raise `NonFiniteGradientError`,\n"
     "or leave the whole step out and count it in `State.skipped_steps`.",
     nonfinite_choices},
    {Setting::average_decay, "average_decay", Kind::option, "None", average_decays, every_rule, settable, 2,
     "In [0, 1): keep `State.average`, a moving average of the parameters that begins with what they are\n"
     "now; set later, with what they are before the next step. Set to None, it stays as it is."},
    {Setting::velocity_dtype, "velocity_dtype", Kind::dtype, "None", any_value, every_rule, fixed, 2,
     "As what velocities and moments are stored; None is the dtype that is worked on in. The arithmetic\n"
     "stays in float32. Not for float64; int8 not where there is a second moment."},
    {Setting::compensated, "compensated", Kind::flag, "False", any_value, every_rule, fixed, 2,
     "Keep what rounding takes from the parameters in one more array of their dtype, so that small\n"
     "steps add up."},
};

// Complex numbers have no order: what compares elements is for real arrays alone.
constexpr bool compares_elements(Setting::Name name) {
    return name == Setting::clip_value || name == Setting::lower || name == Setting::upper ||
           name == Setting::l1;
}

// The value of each setting for one array: a number or `none`, a flag as 0 or 1, the place of a choice among
// its own.
struct Values {
    double of[Setting::n] = {};

    constexpr Values() {
        for (const Setting& setting : all_settings)
            if (setting.kind == Kind::option || setting.kind == Kind::bound ||
                setting.kind == Kind::choice_or_none)
                of[setting.place] = none;
    }
    double operator[](Setting::Name name) const { return of[name]; }
    double& operator[](Setting::Name name) { return of[name]; }
    bool has(Setting::Name name) const { return of[name] == of[name]; }
};

// ---- slots ----

struct Slot {
    enum Name : unsigned {
        velocity,
        second_moment,
        second_moment_maximum,
        mean,
        iterate,
        average,
        compensation,
        master,
        n
    };
    enum When : unsigned char { kept_by_the_rule, average_wanted, compensation_wanted, params_narrow };
    // `dithered` is velocity_dtype, too, rounded up or down in turns: see Storage::dither.
    enum As : unsigned char { velocity_dtype, dithered, params, worked_in };
    Name place;
    const char* name;
    When when;         // there is one
    As as;             // the dtype that it is stored as
    bool begins_zero;  // and does so again after reset(); else as a copy of the parameters
    int since;         // the first format of checkpoints that has it
    const char* doc;   // of the attribute of State, if there is one
    Setting::Name only_with = Setting::n;  // the flag without which a rule that keeps it has none

    bool is_of_the_rule() const { return when == kept_by_the_rule; }
};

// In the order of checkpoints.
constexpr Slot all_slots[] = {
    {Slot::velocity, "velocity", Slot::kept_by_the_rule, Slot::velocity_dtype, true, 1,
     "The velocities, in containers like those given to `init` to which nothing can be assigned (tuples for\n"
     "lists, views of dicts): read-only arrays that show each later step. Where they are stored as another "
     "`velocity_dtype`, copies in float32."},
    {Slot::second_moment, "second_moment", Slot::kept_by_the_rule, Slot::dithered, true, 4,
     "The moving averages of squared gradients, in the manner of `velocity`."},
    {Slot::second_moment_maximum, "second_moment_maximum", Slot::kept_by_the_rule, Slot::velocity_dtype, true,
     4, "The largest second moments so far, in the manner of `velocity`. None without amsgrad.",
     Setting::amsgrad},
    {Slot::mean, "mean", Slot::kept_by_the_rule, Slot::velocity_dtype, true, 4,
     "The moving averages of gradients, in the manner of `velocity`. None without centered.",
     Setting::centered},
    {Slot::iterate, "iterate", Slot::kept_by_the_rule, Slot::worked_in, false, 5,
     "The answer so far, ``x``, in the manner of `velocity`, while the parameters are the points at which "
     "the next\n"
     "gradients are to be taken."},
    {Slot::average, "average", Slot::average_wanted, Slot::worked_in, false, 2,
     "The average of the parameters, in such containers: read-only arrays that show each later step. None "
     "where\n"
     "there is none."},
    {Slot::compensation, "compensation", Slot::compensation_wanted, Slot::params, true, 2, nullptr},
    {Slot::master, "master", Slot::params_narrow, Slot::worked_in, false, 2, nullptr},
};

// ---- a row for each name, in their order ----

template <class Row, unsigned n>
constexpr bool in_order(const Row (&rows)[n]) {
    for (unsigned i = 0; i < n; ++i)
        if (rows[i].place != i) return false;
    return n == Row::n;
}
static_assert(in_order(all_settings) && in_order(all_slots));

// ---- the format of checkpoints ----

// Format 1 had no options of a whole update, and nothing that is kept for them. Format 2 had no rule, and
// said only whether an array has made a step. Later ones have more rows.
template <class Row, unsigned n>
constexpr int newest(const Row (&rows)[n], int format) {
    for (const Row& row : rows) format = row.since > format ? row.since : format;
    return format;
}
constexpr int checkpoint_format = newest(all_slots, newest(all_settings, 3));

}  // namespace fast_momentum
