// State: hyperparameters, velocities, first-step flags, and the mark that says that it is in use.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "checks.hpp"
#include "coefficients.hpp"
#include "hyperparameters.hpp"
#include "tree.hpp"
#include "velocities.hpp"

namespace fast_momentum {

struct ConcurrentStepError : std::runtime_error {
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

// The hyperparameters as init() and checkpoints hand them over.
struct Given {
    std::array<py::object, n_numbers> numbers;
    std::array<py::object, n_flags> flags;
};

class State {
  public:
    // Checks what only init() refuses, too.
    static std::unique_ptr<State> init(py::handle params, const Given& given, Form form);
    std::unique_ptr<State> copy();

    Form form() const { return form_; }
    long long step_count() const { return step_count_; }
    const Tree& tree() const { return tree_; }
    const Velocities& velocities() const { return velocities_; }
    py::object number(Number::Name name) const { return numbers_[name].value(); }
    bool flag(Flag::Name name) const { return flags_[name]; }
    void set_number(Number::Name name, py::handle value);
    void set_flag(Flag::Name name, py::handle value);

    py::object velocity_containers() const;
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
    // Counts the step and starts the arrays that had a gradient.
    void finish_step(const Leaves& grads) noexcept;

    Mark mark;
    Call call;  // the scratch memory of step()

  private:
    // `leaves` takes those of `params`.
    State(py::handle params, Leaves& leaves, const Given& given, Form form);
    State(const State& other);

    Hyperparameter checked_number(Number::Name name, py::handle value) const;
    void check_init() const;
    void check_products(const char* what, Number::Name a, Number::Name b) const;
    std::vector<std::string> paths() const;  // throws where two are alike

    // A velocity that has been checked, to be taken over.
    struct Entry {
        std::size_t i;
        py::array values;
        bool started;
    };
    py::dict summary() const;
    py::object copy_of_velocity(std::size_t i) const;
    Entry checked_entry(std::size_t i, py::handle values, py::handle started, const std::string& key) const;
    void take_over(const std::vector<Entry>& entries) noexcept;

    Form form_;
    Tree tree_;
    std::vector<unsigned char> dtypes_;
    Velocities velocities_;
    std::vector<Hyperparameter> numbers_;  // by Number::Name
    std::array<bool, n_flags> flags_;
    std::vector<unsigned char> started_;
    long long step_count_ = 0;

    Constants constants_;
    bool constants_are_stale_ = true;
};

}  // namespace fast_momentum
