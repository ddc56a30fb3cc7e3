#include "state.hpp"

#include <algorithm>

#include "threads.hpp"

namespace fast_momentum {

namespace {

Flags flags_of(const std::array<bool, n_flags>& flags) {
    return {flags[nesterov_flag], flags[decoupled_weight_decay_flag], flags[maximize_flag]};
}

}  // namespace

// ---- the mark ----

Mark::Hold::Hold(Mark& mark, Use use) : mark_(mark), generation_(fork_generation()) {
    if (mark.generation_ != generation_) {
        mark.readers_ = 0;
        mark.writer_ = false;
        mark.generation_ = generation_;
    }
    if (mark.writer_ || (use == writing && mark.readers_ > 0))
        throw ConcurrentStepError(
            "state must not be used while a step or a look-ahead of it is running; use one State per thread, "
            "or a "
            "lock");
    if (use == writing)
        mark.writer_ = true;
    else
        ++mark.readers_;
}

Mark::Hold::~Hold() {
    if (mark_.generation_ != generation_ || generation_ != fork_generation()) return;
    if (mark_.writer_)
        mark_.writer_ = false;
    else
        --mark_.readers_;
}

// ---- construction ----

State::State(py::handle params, const Given& given, Form form) : State(params, given, form, Leaves()) {}

State::State(py::handle params, const Given& given, Form form, Leaves&& leaves)
    : form_(form),
      tree_(params, leaves),
      dtypes_(checked_dtypes(tree_, leaves)),
      velocities_(leaves, dtypes_),
      started_(leaves.size(), 0) {
    for (const Name name : {lr, momentum, dampening, weight_decay})
        numbers_.push_back(checked_number(name, given.numbers[name]));
    for (const FlagName name : {nesterov_flag, decoupled_weight_decay_flag, maximize_flag})
        set_flag(name, given.flags[name]);
}

State::State(const State& other)
    : form_(other.form_),
      tree_(other.tree_),
      dtypes_(other.dtypes_),
      velocities_(other.velocities_),
      numbers_(other.numbers_),
      flags_(other.flags_),
      started_(other.started_),
      step_count_(other.step_count_) {}

std::unique_ptr<State> State::init(py::handle params, const Given& given, Form form) {
    std::unique_ptr<State> state(new State(params, given, form));
    state->check_init();
    state->kept_table();
    return state;
}

std::unique_ptr<State> State::copy() {
    const Mark::Hold hold(mark, Mark::reading);
    return std::unique_ptr<State>(new State(*this));
}

// No option is accepted and then ignored; later, a schedule may end at momentum 0.
void State::check_init() const {
    if (numbers_[momentum].any_nonzero()) return;
    if (flags_[nesterov_flag])
        throw py::value_error("momentum must be above 0 where nesterov is True, not 0.0");
    if (numbers_[dampening].any_nonzero())
        throw py::value_error("momentum must be above 0 where dampening is not 0, not 0.0");
}

// ---- hyperparameters ----

Hyperparameter State::checked_number(Name name, py::handle value) const {
    return Hyperparameter(name, value, tree_, dtypes_, form_);
}

void State::set_number(Name name, py::handle value) {
    numbers_[name] = checked_number(name, value);
    table_is_stale_ = true;
}

void State::set_flag(FlagName name, py::handle value) {
    flags_[name] = checked_flag(flag_names[name], value);
    table_is_stale_ = true;
}

void State::check_products(const char* what, Name a, Name b) const {
    const bool per_array = numbers_[a].per_array() || numbers_[b].per_array();
    for (std::size_t i = 0; i < dtypes_.size(); ++i)
        if (per_array || i == 0 || dtypes_[i] != dtypes_[i - 1])
            check_product(what, numbers_[a].of(i), numbers_[b].of(i), velocities_.dtype(i),
                          "params" + tree_.path(i));
}

void State::check_lookahead() const {
    if (flags_[nesterov_flag])
        throw py::value_error(
            "state.nesterov must be False in lookahead(), not True: such parameters are the look-ahead point "
            "already");
    if (form_ != Form::lr_inside) check_products("lr * momentum", lr, momentum);
}

bool State::per_array() const {
    return std::any_of(numbers_.begin(), numbers_.end(),
                       [](const Hyperparameter& number) { return number.per_array(); });
}

std::vector<Coefficients> State::table() const {
    if (flags_[nesterov_flag] && numbers_[dampening].any_nonzero())
        throw py::value_error(
            "nesterov must be False where dampening is not 0, not True; set dampening to 0");
    if (flags_[decoupled_weight_decay_flag]) check_products("lr * weight_decay", lr, weight_decay);
    std::vector<Coefficients> table;
    for (std::size_t i = 0; i < (per_array() ? dtypes_.size() : 1); ++i)
        for (const bool first : {true, false}) {
            const Numbers numbers = {numbers_[lr].of(i), numbers_[momentum].of(i), numbers_[dampening].of(i),
                                     numbers_[weight_decay].of(i)};
            table.push_back(coefficients(form_, numbers, flags_of(flags_), first));
        }
    return table;
}

const std::vector<Coefficients>& State::kept_table() {
    if (table_is_stale_) table_ = table();
    table_is_stale_ = false;
    return table_;
}

Constants State::constants(const std::vector<Coefficients>& table) const {
    return {table.data(), per_array(), started_.data()};
}

// ---- use ----

void State::finish_step(const Leaves& grads) noexcept {
    for (std::size_t i = 0; i < started_.size(); ++i)
        if (grads[i] != Py_None) started_[i] = 1;
    ++step_count_;
}

py::object State::velocity_containers() const {
    return tree_.build([&](std::size_t i) -> py::object { return velocities_.view(i); });
}

std::string State::repr() const {
    std::size_t elements = 0;
    for (std::size_t i = 0; i < velocities_.size(); ++i) elements += velocities_[i].size;
    std::string text = std::string("<State ") + name_of(form_);
    for (unsigned name = 0; name < n_names; ++name)
        text += std::string(", ") + hyperparameter_names[name] + "=" +
                (numbers_[name].per_array() ? "per array" : repr_of(number(Name(name))));
    for (unsigned name = 0; name < n_flags; ++name)
        if (flags_[name]) text += std::string(", ") + flag_names[name];
    return text + ", " + std::to_string(velocities_.size()) + " arrays, " + std::to_string(elements) +
           " elements, " + std::to_string(step_count_) + " steps>";
}

void State::reset(py::handle path) {
    const Mark::Hold hold(mark, Mark::writing);
    const std::vector<std::string> all = paths();
    auto begin = all.begin(), end = all.end();
    if (!path.is_none()) {
        if (!py::isinstance<py::str>(path))
            throw py::type_error("path must be a string or None, not " + type_name(path));
        begin = std::find(all.begin(), all.end(), path.cast<std::string>());
        if (begin == all.end())
            throw py::value_error("path must be that of an array, as in state_dict()['velocity'], not " +
                                  repr_of(path));
        end = begin + 1;
    }
    for (; begin != end; ++begin) {
        const auto i = static_cast<std::size_t>(begin - all.begin());
        velocities_.set_zero(i);
        started_[i] = 0;
    }
}

}  // namespace fast_momentum
