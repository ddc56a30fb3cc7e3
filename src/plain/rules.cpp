#include "plain/rules.hpp"

#include <cstring>

namespace fast_momentum {

namespace {

template <class... Names>
constexpr unsigned bits(Names... names) {
    return ((1u << names) | ... | 0u);
}

void lr_outside(const Values& h, long long steps, Coefficients& c) {
    c.keep = steps == 0 ? 0 : h[Setting::momentum];
    c.gain = steps == 0 ? 1 : 1 - h[Setting::dampening];
    c.direct = 1;
    c.carried = h[Setting::momentum];
    c.scale = h[Setting::lr];
}

void lr_inside(const Values& h, long long, Coefficients& c) {
    c.keep = c.carried = h[Setting::momentum];
    c.gain = c.direct = h[Setting::lr];
    c.scale = 1;
}

void ema(const Values& h, long long, Coefficients& c) {
    c.keep = c.carried = h[Setting::momentum];
    c.gain = c.direct = 1 - h[Setting::momentum];
    c.scale = h[Setting::lr];
}

void quasi_hyperbolic(const Values& h, long long, Coefficients& c) {
    c.keep = h[Setting::momentum];
    c.gain = 1 - h[Setting::momentum];
    c.direct = 1 - h[Setting::nu];
    c.carried = h[Setting::nu];
    c.scale = h[Setting::lr];
    c.variant += Term::nesterov;
}

constexpr unsigned of_momentum = bits(Setting::momentum, Setting::nesterov, Setting::form);

constexpr Default qhm_defaults[] = {{Setting::momentum, "0.999"}, {}};

const std::vector<Rule> rows = {
    {"momentum", "init", "lr_outside", Formula::linear, of_momentum | bits(Setting::dampening),
     bits(Slot::velocity), Rule::lr_momentum, lr_outside},
    {"momentum", "init", "lr_inside", Formula::linear, of_momentum, bits(Slot::velocity), Rule::momentum,
     lr_inside},
    {"momentum", "init", "ema", Formula::linear, of_momentum, bits(Slot::velocity), Rule::lr_momentum, ema},
    {"qhm", "qhm", nullptr, Formula::linear, bits(Setting::momentum, Setting::nu), bits(Slot::velocity),
     Rule::none, quasi_hyperbolic, qhm_defaults},
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

Coefficients coefficients(const Rule& rule, const Values& h, long long steps) {
    Coefficients c{};
    c.sign = h[Setting::maximize] ? -1 : 1;
    c.variant = rule.formula * n_term_sets + (h[Setting::nesterov] ? unsigned(Term::nesterov) : 0);
    rule.constants(h, steps, c);
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
