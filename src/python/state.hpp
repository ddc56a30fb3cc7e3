// State: hyperparameters, options, velocities and what else it keeps, first-step flags, and the mark that
// says that it is in use.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "plain/coefficients.hpp"
#include "python/arrays.hpp"
#include "python/checks.hpp"
#include "python/hyperparameters.hpp"
#include "python/options.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

struct ConcurrentStepError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct NonFiniteGradientError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Whether a call that writes, or calls that read, are at work on a State. Changed with the GIL held. Void in
// a forked child, in which the thread that set it does not exist.
class Mark {
  public:
    enum Use { reading, writing };

    // Held for the time of one call; throws ConcurrentStepError where that cannot be.
    class Hold {
      public:
        Hold(Mark& mark, Use use);
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        ~Hold();

      private:
        Mark& mark_;
        unsigned generation_;
    };

  private:
    int readers_ = 0;
    bool writer_ = false;
    unsigned generation_ = 0;  // of the process that set it
};

// The hyperparameters and options as init() and checkpoints hand them over.
struct Given {
    std::array<py::object, n_numbers> numbers;
    std::array<py::object, n_flags> flags;
    std::array<py::object, n_options> options;
    py::object nonfinite, velocity_dtype, compensated;
};

class State {
  public:
    // Checks what only init() refuses, too.
    static std::unique_ptr<State> init(py::handle params, const Given& given, Form form);
    std::unique_ptr<State> copy();

    Form form() const { return form_; }
    long long step_count() const { return step_count_; }
    const Tree& tree() const { return tree_; }
    const Kept& kept() const { return kept_; }
    py::object number(Number::Name name) const { return numbers_[name].value(); }
    bool flag(Flag::Name name) const { return flags_[name]; }
    void set_number(Number::Name name, py::handle value);
    void set_flag(Flag::Name name, py::handle value);

    std::optional<double> option(Option::Name name) const { return options_[name]; }
    Nonfinite nonfinite() const { return nonfinite_; }
    const char* velocity_dtype() const { return velocity_dtype_.name; }
    bool compensated() const { return compensated_; }
    void set_option(Option::Name name, py::handle value);
    void set_nonfinite(py::handle value);

    std::optional<double> grad_norm() const { return grad_norm_; }
    long long skipped_steps() const { return skipped_steps_; }

    py::object velocity_containers();
    py::object average_containers() const;  // None where there is none
    std::string repr() const;
    void reset(py::handle path);

    py::dict state_dict();
    void load_state_dict(py::handle source, bool strict);
    py::tuple pickled();
    static std::unique_ptr<State> unpickled(py::handle containers, py::handle rest);

    // The constants of the hyperparameters in force. Throws where these do not go together.
    Constants constants() const;
    // The same, kept until a hyperparameter is set; for step(), of which there is one at a time.
    const Constants& kept_constants();
    // Throws where the look-ahead cannot be formed.
    void check_lookahead() const;
    const std::vector<unsigned char>& started() const { return started_; }

    // What a step does beyond the rule; up to date once kept_constants() was called.
    const Request& request() const { return request_; }
    Request request(py::handle grad_scale, py::handle zero_grads) const;  // null where not given
    // An average that is not there yet is to start as a copy of `params`, which have been checked. It is
    // there once the step is finished.
    void make_room_for_average();
    void copy_to_average(const Leaves& params);
    void set_grad_norm(std::optional<double> norm) { grad_norm_ = norm; }
    void count_skipped_step() { ++skipped_steps_; }
    // Counts the step and starts the arrays that had a gradient.
    void finish_step(const Leaves& grads) noexcept;
    // Throws where there is no average; or, to be used for anything else, where it is swapped.
    void check_has_average() const;
    void check_not_swapped() const;
    void toggle_swapped() noexcept;

    Mark mark;
    Call call;  // the scratch memory of step()

  private:
    // `leaves` are those of `tree`, or arrays like them.
    State(Tree tree, const Leaves& leaves, const ParamDtypes& dtypes, const Given& given, Form form);
    State(const State& other);

    Hyperparameter checked_number(Number::Name name, py::handle value) const;
    void check_init() const;
    void check_options() const;
    bool is_plain(const Request& request) const;
    void copy_into(Arrays& arrays, const Leaves& params);
    void check_products(const char* what, Number::Name a, Number::Name b) const;
    std::vector<std::string> paths() const;  // throws where two are alike

    // A velocity that has been checked, to be taken over.
    struct Entry {
        std::size_t i;
        py::array values;
        bool started;
    };
    // The same of what is kept beside it; arrays is nullptr where there is nothing of the kind.
    struct KeptItem {
        const char* key;
        Arrays* arrays;
    };
    struct KeptEntry {
        Arrays* arrays;
        std::size_t i;
        py::array values;
    };
    py::dict summary() const;
    std::vector<KeptItem> kept_items();
    py::array checked_values(const Arrays& arrays, std::size_t i, py::handle values,
                             const std::string& path) const;
    Entry checked_entry(std::size_t i, py::handle values, py::handle started, const std::string& key) const;
    void take_over(const std::vector<Entry>& entries) noexcept;

    Form form_;
    Tree tree_;
    std::vector<unsigned char> dtypes_;  // that arrays are worked on in
    VelocityDtype velocity_dtype_;
    bool compensated_;
    Kept kept_;
    std::vector<Hyperparameter> numbers_;  // by Number::Name
    std::array<bool, n_flags> flags_;
    std::array<std::optional<double>, n_options> options_;
    Nonfinite nonfinite_;
    std::vector<unsigned char> started_;
    long long step_count_ = 0, skipped_steps_ = 0;
    std::optional<double> grad_norm_;
    bool average_started_ = false, swapped_ = false;

    Constants constants_;
    Request request_;
    bool constants_are_stale_ = true;  // and request_
};

}  // namespace fast_momentum
