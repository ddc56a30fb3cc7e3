// State: the settings of a run, the arrays that it keeps, its counters, and the mark that says that it is in
// use.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "plain/limits.hpp"
#include "plain/rules.hpp"
#include "python/arrays.hpp"
#include "python/checks.hpp"
#include "python/guarded.hpp"
#include "python/mark.hpp"
#include "python/settings.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

struct Saved;
using Items = std::map<std::string, py::object>;

struct NonFiniteGradientError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// As a checkpoint holds it and attributes show it. One that was made by hand may begin with the most that it
// can hold, and what is saved later has to be loaded, too.
inline long long counted(long long count) {
    return std::min(count, most_count - 1);
}
std::vector<long long> counted(std::vector<long long> counts);

// Whether what is made of the settings has to be made anew: said by whoever sets one, asked by each step. A
// copy makes its own.
class Stale {
  public:
    Stale() = default;
    Stale(const Stale&) {}
    Stale& operator=(bool value) {
        value_ = value;
        return *this;
    }
    operator bool() const { return value_; }

  private:
    std::atomic<bool> value_{true};
};

// Where a run has got to.
struct Progress {
    long long step_count = 0, skipped_steps = 0;
    std::optional<double> grad_norm;
    bool swapped = false;          // params and average
    bool average_started = false;  // else there may be room for one, but nothing in it
};

class State {
  public:
    // Checks what only the function that makes a State refuses, too. `rule` is any form of it.
    // Kept elsewhere, it says what it would keep, checks and counts, and has none of the arrays.
    static std::unique_ptr<State> init(const Rule& rule, py::handle params, const Given& given,
                                       bool kept_elsewhere = false);
    std::unique_ptr<State> copy();

    const Tree& tree() const { return kept_.params.tree; }
    const Kept& kept() const { return kept_; }
    const Rule& rule() const { return *rule_; }  // in its form
    Progress progress() const { return progress_.copy(); }
    // Throws where the rule has no such setting.
    py::object shown(Setting::Name name) const;
    void set(Setting::Name name, py::handle value);
    // Whether it is not 0, or not None, for some array.
    bool is_set(Setting::Name name) const;

    // The arrays of a slot, None where it is empty. Throws where the rule has no such slot.
    py::object containers(Slot::Name slot);
    std::string repr() const;
    void reset(py::handle path);
    // Multiplies each velocity with the factor of its array, or throws and changes nothing.
    void scale_velocities(const std::vector<double>& factors);
    void set_lr(py::handle lr, py::handle rescale_velocity);

    py::dict state_dict();
    void load_state_dict(py::handle source, py::handle strict);
    py::tuple pickled();
    // For files: calls use(description, params, memory), with the arrays of `params`, which have been
    // checked, and the memory of each array that is kept, while no step can be made. fill() takes the
    // description that it is given over when `use` has written the memory, or throws and changes nothing.
    py::object lend(py::handle params, const py::object& use);
    void fill(py::handle params, py::handle description, const py::object& use);
    static std::unique_ptr<State> unpickled(py::handle containers, py::handle rest);

    // ---- for the calls of step.cpp, of which one is at work at a time ----

    // The constants of the settings in force; throws where these do not go together. Kept until one is set.
    const Constants& kept_constants() {
        if (is_stale_ || rule_->ages) renew_constants();
        return constants_;
    }
    // For a look-ahead; throws where that cannot be formed.
    Constants lookahead_constants() const;
    // What a step does beyond the rule, once kept_constants() was called; null where not given.
    Pass pass(py::handle grad_scale, py::handle zero_grads) const;
    const Plan& plan() const { return plan_; }  // of a pass for which nothing was given
    const std::vector<long long>& steps() const { return steps_; }

    // An average that is not there yet is to start as a copy of `params`, which have been checked. It is
    // there once the step is finished.
    void copy_to_average(const Leaves& params);
    void set_grad_norm(std::optional<double> norm) {
        progress_.change([&](Progress& progress) { progress.grad_norm = norm; });
    }
    void count_skipped_step() {
        progress_.change([](Progress& progress) { ++progress.skipped_steps; });
    }
    // Counts the step, for all and for the arrays that had a gradient.
    void finish_step(const Leaves& grads) noexcept;
    void restart_sequences() noexcept { std::fill(histories_.begin(), histories_.end(), 1.0); }
    // Throws where there is no average; or, to be used for anything else, where it is swapped.
    void check_has_average() const;
    void check_not_swapped() const;
    void toggle_swapped() noexcept;

    // Calls visit(object) with each object of Python that it keeps, once for each reference to it.
    template <class Visit>
    void each_object(const Visit& visit) {
        kept_.params.tree.each_object(visit);
        settings_.unguarded().each_object(visit);
        in_force_.each_object(visit);
    }

    Fresh<Mark> mark;
    Fresh<Call> call;  // the scratch memory of step()

  private:
    // `leaves` are those of `params`, or arrays like them.
    State(const Rule& rule, Params params, const Leaves& leaves, const Given& given);
    State(const State& other) = default;

    void check_init(const Settings& settings) const;
    // As each step does, and each way of loading.
    void check_together(const Settings& settings) const;
    void check_options(const Settings& settings) const;  // those of the whole update
    void check_rule(const Settings& settings) const;     // those of the rule
    void check_first_step(const Settings& settings) const;
    // The constant `what`, formed of two hyperparameters, must not vanish or overflow in the dtype of an
    // array.
    void check_products(const Settings& settings, const char* what, Setting::Name a, Setting::Name b) const;
    void check_lookahead(const Settings& settings) const;
    Age age(std::size_t i) const;
    void make_constants(const Settings& settings, Constants& made) const;
    void renew_constants();
    void copy_into(Arrays& arrays, const Leaves& params);
    std::vector<std::string> paths() const;  // throws where two are alike
    double gain(const Settings& settings, std::size_t i, const Settings& of_lr) const;
    bool try_set_lr(Item& item, bool rescales);
    bool has_lr_in_velocity(const Settings& settings, const Settings& found) const;
    std::vector<double> lr_corrections(const Settings& settings, const Settings& found) const;
    Arrays scaled_velocity(const std::vector<double>& factors) const;

    py::dict summary() const;
    Settings checked_settings(Saved& saved) const;
    // An average, where there is one in the checkpoint, must be one that a step could have made.
    void check_average(const Saved& saved) const;
    std::vector<double> checked_histories(const Items& items) const;
    void take(Settings&& settings, Saved&& saved) noexcept;
    py::list memory(bool with_average, const std::vector<long long>& steps) const;
    bool has_slot(Slot::Name slot) const;  // in a checkpoint

    // At any time, any thread may
    Guarded<Settings> settings_;  // set and read these,
    Guarded<Progress> progress_;  // and read these, which only who holds the mark for writing changes.
    const Rule* rule_;

    // What follows is for those who hold the mark; but for what is in the arrays, and whether there is an
    // average, Kept does not change.
    Kept kept_;
    std::vector<long long> steps_;   // that each array has made
    std::vector<double> histories_;  // of each array; Age

    Stale is_stale_;     // what follows is made of the settings
    Settings in_force_;  // for the step at work, while others may be set
    Constants constants_;
    Plan plan_;
    bool has_bounds_ = false;
};

}  // namespace fast_momentum
