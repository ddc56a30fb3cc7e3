// A row for each rule and form: what it takes, what it keeps, and which constants it makes of them; the only
// place that knows what a rule or a form is.
#pragma once

#include <string>
#include <vector>

#include "kernels/formulas.hpp"
#include "plain/tables.hpp"

namespace fast_momentum {

// What an array has behind it.
struct Age {
    long long steps = 0;
    double history = 1;  // what its steps have made of this number, if its rule says so
};

// What Age::history is: the name that checkpoints have for it, and what it may be.
struct History {
    const char* name;
    Range range;
};

struct Default {
    Setting::Name name;
    const char* value;
};

struct Rule {
    const char* name;
    const char* made_by;  // the function that makes a State of it
    const char* form;     // nullptr where it has but one
    Formula::Name formula;
    unsigned takes;  // bits of the settings that it takes beside those of every rule
    unsigned keeps;  // bits of the slots
    enum { none, lr_momentum, momentum } ahead;  // how far a look-ahead goes, times the velocity
    void (*constants)(const Values& values, const Age& age, Coefficients& constants);
    const Default* defaults = nullptr;  // of its own; one without a value is the end
    bool ages = false;                  // whether each step has other constants, and not only the first
    const History* history = nullptr;
    unsigned lacks = 0;  // bits of the settings of every rule that it does not take

    bool takes_setting(Setting::Name setting) const {
        const unsigned own = all_settings[setting].of_every_rule ? ~lacks : takes;
        return own >> setting & 1;
    }
    bool keeps_slot(Slot::Name slot) const { return keeps >> slot & 1; }
    bool has_second_moment() const { return keeps_slot(Slot::second_moment); }
    bool is_accelerated() const { return keeps_slot(Slot::iterate); }
    const char* fallback(Setting::Name setting) const;
    // The form of momentum, the name and the form of another rule.
    std::string title() const;
};

// C programs know a row by its place: new ones come last.
const std::vector<Rule>& all_rules();

// The rule of this name and form, nullptr for none.
const Rule* find_rule(const std::string& name, const char* form);
// Its first form, the default.
const Rule* find_rule(const std::string& name);

// Whether some form of the rule takes it; else there is no such keyword and no such attribute.
bool is_keyword(const Rule& rule, Setting::Name setting);

// What a setting of Kind::choice may be in the rule, whatever its form.
std::vector<const char*> choices(const Setting& setting, const Rule& rule);

// Nobody has said what a Nesterov step with dampening should be; PyTorch refuses it, too.
inline bool excludes_dampening(const Values& values) {
    return values[Setting::nesterov] != 0;
}

// For the next step of an array.
Coefficients coefficients(const Rule& rule, const Values& values, const Age& age);

}  // namespace fast_momentum
