#include "plain/rules.hpp"

#include <cmath>
#include <cstring>

namespace fast_momentum {

namespace {

template <class... Names>
constexpr unsigned bits(Names... names) {
    return ((1u << names) | ... | 0u);
}

void lr_outside(const Values& h, const Age& age, Coefficients& c) {
    c.keep = age.steps == 0 ? 0 : h[Setting::momentum];
    c.gain = age.steps == 0 ? 1 : 1 - h[Setting::dampening];
    c.direct = 1;
    c.carried = h[Setting::momentum];
    c.scale = h[Setting::lr];
}

void lr_inside(const Values& h, const Age&, Coefficients& c) {
    c.keep = c.carried = h[Setting::momentum];
    c.gain = c.direct = h[Setting::lr];
    c.scale = 1;
}

void ema(const Values& h, const Age&, Coefficients& c) {
    c.keep = c.carried = h[Setting::momentum];
    c.gain = c.direct = 1 - h[Setting::momentum];
    c.scale = h[Setting::lr];
}

void quasi_hyperbolic(const Values& h, const Age&, Coefficients& c) {
    c.keep = h[Setting::momentum];
    c.gain = 1 - h[Setting::momentum];
    c.direct = 1 - h[Setting::nu];
    c.carried = h[Setting::nu];
    c.scale = h[Setting::lr];
    c.variant += Term::nesterov;
}

// beta1 in the step after `steps` others.
double momentum_of(const Values& h, long long steps) {
    return h[Setting::beta1] * (1 - 0.5 * std::pow(0.96, double(steps + 1) * h[Setting::momentum_decay]));
}

// Multiples of the golden section are spread evenly, however many there are.
std::uint32_t dither(const Age& age) {
    return std::uint32_t(age.steps % 65536 * 40503 % 65536);
}

void adam(const Values& h, const Age& age, Coefficients& c) {
    c.keep = h[Setting::beta1];
    c.gain = 1 - h[Setting::beta1];
    c.second_keep = h[Setting::beta2];
    c.second_gain = 1 - h[Setting::beta2];
    c.eps = h[Setting::eps];
    c.scale = h[Setting::lr];
    c.correction = 1;
    c.next_history = age.history * h[Setting::beta1];
    c.dither = dither(age);
    if (h[Setting::amsgrad]) c.variant += Term::amsgrad;
}

double sum_of_weights(const Values& h, Setting::Name beta, const Age& age, int further = 1) {
    return 1 - std::pow(h[beta], double(age.steps + further));
}

void adam_corrected(const Values& h, const Age& age, Coefficients& c) {
    adam(h, age, c);
    const double first = sum_of_weights(h, Setting::beta1, age);
    c.correction = 1 / std::sqrt(sum_of_weights(h, Setting::beta2, age));
    if (h[Setting::nesterov] && h.has(Setting::momentum_decay)) {
        const double mu = momentum_of(h, age.steps), next = momentum_of(h, age.steps + 1);
        const double product = c.next_history = age.history * mu;
        c.direct = (1 - mu) / (1 - product);
        c.carried = next / (1 - product * next);
    } else if (h[Setting::nesterov]) {
        c.direct = (1 - h[Setting::beta1]) / first;
        c.carried = h[Setting::beta1] / sum_of_weights(h, Setting::beta1, age, 2);
    } else {
        c.scale = h[Setting::lr] / first;
    }
}

void adam_folded(const Values& h, const Age& age, Coefficients& c) {
    adam(h, age, c);
    c.scale = h[Setting::lr] * std::sqrt(sum_of_weights(h, Setting::beta2, age)) /
              sum_of_weights(h, Setting::beta1, age);
}

void lion(const Values& h, const Age&, Coefficients& c) {
    c.carried = h[Setting::beta1];
    c.direct = 1 - h[Setting::beta1];
    c.keep = h[Setting::beta2];
    c.gain = 1 - h[Setting::beta2];
    c.scale = h[Setting::lr];
}

void signum(const Values& h, const Age& age, Coefficients& c) {
    ema(h, age, c);
    c.direct = c.gain;  // the sign is that of the new velocity
}

void rmsprop(const Values& h, const Age& age, Coefficients& c) {
    c.keep = h[Setting::momentum];
    c.gain = 1;
    c.second_keep = h[Setting::rho];
    c.second_gain = 1 - h[Setting::rho];
    c.eps = h[Setting::eps];
    c.scale = h[Setting::lr];
    c.dither = dither(age);
    if (h[Setting::momentum] != 0) c.variant += Term::momentum;
    if (h[Setting::centered]) c.variant += Term::centered;
}

void rmsprop_inside(const Values& h, const Age& age, Coefficients& c) {
    rmsprop(h, age, c);
    c.gain = h[Setting::lr];
    c.eps = 0;
    c.inner_eps = h[Setting::eps];
    c.scale = 1;
}

// The history is t for FISTA's sequence and k for Nesterov's.
void accelerated(const Values& h, const Age& age, Coefficients& c) {
    const double sequence = h[Setting::sequence], position = age.history;
    c.scale = h[Setting::lr];
    c.threshold = h[Setting::lr] * h[Setting::l1];
    c.carried = sequence;
    if (sequence == fista) {
        c.next_history = (1 + std::sqrt(1 + 4 * position * position)) / 2;
        c.carried = (position - 1) / c.next_history;
    } else if (sequence == nesterov_sequence) {
        c.next_history = position + 1;
        c.carried = (position - 1) / (position + 2);
    }
    c.is_first = age.steps == 0;
}

constexpr unsigned of_momentum = bits(Setting::momentum, Setting::nesterov, Setting::form);

constexpr unsigned of_adam =
    bits(Setting::beta1, Setting::beta2, Setting::eps, Setting::amsgrad, Setting::form);
constexpr unsigned of_rmsprop =
    bits(Setting::rho, Setting::momentum, Setting::eps, Setting::centered, Setting::form);
constexpr unsigned moments = bits(Slot::velocity, Slot::second_moment);
constexpr unsigned kept_by_adam = moments | bits(Slot::second_moment_maximum);

constexpr Default qhm_defaults[] = {{Setting::momentum, "0.999"}, {}};
constexpr Default adam_defaults[] = {{Setting::form, "'corrected'"}, {}};
constexpr Default lion_defaults[] = {{Setting::beta2, "0.99"}, {}};
constexpr Default rmsprop_defaults[] = {{Setting::momentum, "0.0"}, {}};
constexpr bool ages = true;
// The product of the beta1 of all steps, whatever they were.
constexpr History momentum_products = {"momentum_products", up_to_one};
constexpr History sequence_positions = {"sequence_positions", {1, 0x1p62, true, true, "be in [1, 2**62]"}};

const std::vector<Rule> rows = {
    {"momentum", "init", "lr_outside", Formula::linear, of_momentum | bits(Setting::dampening),
     bits(Slot::velocity), Rule::lr_momentum, lr_outside},
    {"momentum", "init", "lr_inside", Formula::linear, of_momentum, bits(Slot::velocity), Rule::momentum,
     lr_inside},
    {"momentum", "init", "ema", Formula::linear, of_momentum, bits(Slot::velocity), Rule::lr_momentum, ema},
    {"qhm", "qhm", nullptr, Formula::linear, bits(Setting::momentum, Setting::nu), bits(Slot::velocity),
     Rule::none, quasi_hyperbolic, qhm_defaults},
    {"adam", "adam", "corrected", Formula::adam, of_adam | bits(Setting::nesterov, Setting::momentum_decay),
     kept_by_adam, Rule::none, adam_corrected, adam_defaults, ages, &momentum_products},
    {"adam", "adam", "folded", Formula::adam, of_adam, kept_by_adam, Rule::none, adam_folded, adam_defaults,
     ages, &momentum_products},
    {"adam", "adam", "folded_float64", Formula::wide_adam, of_adam & ~bits(Setting::amsgrad), kept_by_adam,
     Rule::none, adam_folded, adam_defaults, ages, &momentum_products},
    {"adam", "adam", "uncorrected", Formula::adam, of_adam, kept_by_adam, Rule::none, adam, adam_defaults,
     ages, &momentum_products},
    {"lion", "lion", nullptr, Formula::sign, bits(Setting::beta1, Setting::beta2), bits(Slot::velocity),
     Rule::none, lion, lion_defaults},
    {"signum", "signum", nullptr, Formula::sign, bits(Setting::momentum), bits(Slot::velocity), Rule::none,
     signum},
    {"rmsprop", "rmsprop", "lr_outside", Formula::rmsprop, of_rmsprop, moments | bits(Slot::mean), Rule::none,
     rmsprop, rmsprop_defaults, ages},
    {"rmsprop", "rmsprop", "lr_inside", Formula::rmsprop, of_rmsprop, moments | bits(Slot::mean), Rule::none,
     rmsprop_inside, rmsprop_defaults, ages},
    {"accelerated", "accelerated", nullptr, Formula::descent,
     bits(Setting::sequence, Setting::restart, Setting::l1), bits(Slot::iterate), Rule::none, accelerated,
     nullptr, ages, &sequence_positions,
     bits(Setting::average_decay, Setting::velocity_dtype, Setting::compensated)},
};

}  // namespace

const std::vector<Rule>& all_rules() {
    return rows;
}

const Rule* find_rule(const std::string& name, const char* form) {
    for (const Rule& rule : rows)
        if (name == rule.name && (form && rule.form ? std::strcmp(form, rule.form) == 0 : form == rule.form))
            return &rule;
    return nullptr;
}

const Rule* find_rule(const std::string& name) {
    for (const Rule& rule : rows)
        if (name == rule.name) return &rule;
    return nullptr;
}

const char* Rule::fallback(Setting::Name setting) const {
    for (const Default* own = defaults; own && own->value; ++own)
        if (own->name == setting) return own->value;
    return all_settings[setting].fallback;
}

std::string Rule::title() const {
    if (!form) return name;
    return formula == Formula::linear ? form : std::string(name) + " " + form;
}

bool is_keyword(const Rule& rule, Setting::Name setting) {
    for (const Rule& form : rows)
        if (std::strcmp(form.name, rule.name) == 0 && form.takes_setting(setting)) return true;
    return false;
}

std::vector<const char*> choices(const Setting& setting, const Rule& rule) {
    std::vector<const char*> names;
    for (auto choice = setting.choices; choice && *choice; ++choice) names.push_back(*choice);
    for (const Rule& form : rows)
        if (setting.place == Setting::form && std::strcmp(form.name, rule.name) == 0)
            names.push_back(form.form);
    return names;
}

Coefficients coefficients(const Rule& rule, const Values& h, const Age& age) {
    Coefficients c{};
    c.sign = h[Setting::maximize] ? -1 : 1;
    c.next_history = 1;
    c.lower = h.has(Setting::lower) ? h[Setting::lower] : -infinity;
    c.upper = h.has(Setting::upper) ? h[Setting::upper] : infinity;
    c.variant = first_variant(rule.formula) + (h[Setting::nesterov] ? unsigned(Term::nesterov) : 0);
    rule.constants(h, age, c);
    c.ahead = rule.ahead == Rule::lr_momentum ? h[Setting::lr] * h[Setting::momentum] : h[Setting::momentum];
    if (h[Setting::weight_decay] != 0 && h[Setting::decoupled_weight_decay]) {
        c.decay = h[Setting::lr] * h[Setting::weight_decay];
        c.variant += Term::decoupled_decay;
    } else if (h[Setting::weight_decay] != 0) {
        c.weight_decay = h[Setting::weight_decay];
        c.variant += Term::coupled_decay;
    }
    return c;
}

}  // namespace fast_momentum
