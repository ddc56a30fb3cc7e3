#include "state.hpp"

#include <algorithm>

#include "threads.hpp"

namespace fast_momentum {

namespace {

Flags flags_of(const std::array<bool, n_flags>& flags) {
    return {flags[Flag::nesterov], flags[Flag::decoupled_weight_decay], flags[Flag::maximize]};
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
            "state must be used by one call at a time, not while another one is at work on it; "
            "use one State per thread, or a lock");
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

State::State(py::handle params, Leaves& leaves, const Given& given, Form form)
    : form_(form),
      tree_(params, leaves),
      dtypes_(checked_dtypes(tree_, leaves)),
      velocities_(leaves, dtypes_),
      started_(leaves.size(), 0) {
    for (unsigned name = 0; name < n_numbers; ++name)
        numbers_.push_back(checked_number(Number::Name(name), given.numbers[name]));
    for (unsigned name = 0; name < n_flags; ++name) set_flag(Flag::Name(name), given.flags[name]);
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
    Leaves leaves;
    std::unique_ptr<State> state(new State(params, leaves, given, form));
    state->check_init();
    state->kept_constants();
    return state;
}

std::unique_ptr<State> State::copy() {
    const Mark::Hold hold(mark, Mark::reading);
    return std::unique_ptr<State>(new State(*this));
}

// No option is accepted and then ignored; later, a schedule may end at momentum 0.
void State::check_init() const {
    if (!numbers_[Number::momentum].all_zero()) return;
    if (flags_[Flag::nesterov])
        throw py::value_error("momentum must be above 0 where nesterov is True, not 0.0");
    if (numbers_[Number::dampening].any_nonzero())
        throw py::value_error("momentum must be above 0 where dampening is not 0, not 0.0");
}

// ---- hyperparameters ----

Hyperparameter State::checked_number(Number::Name name, py::handle value) const {
    return Hyperparameter(name, value, tree_, dtypes_, form_);
}

void State::set_number(Number::Name name, py::handle value) {
    numbers_[name] = checked_number(name, value);
    constants_are_stale_ = true;
}

void State::set_flag(Flag::Name name, py::handle value) {
    flags_[name] = checked_flag(flag_names[name], value);
    constants_are_stale_ = true;
}

void State::check_products(const char* what, Number::Name a, Number::Name b) const {
    const bool per_array = numbers_[a].per_array() || numbers_[b].per_array();
    for (std::size_t i = 0; i < dtypes_.size(); ++i)
        if (per_array || i == 0 || dtypes_[i] != dtypes_[i - 1])
            check_product(what, numbers_[a].of(i), numbers_[b].of(i), velocities_.dtype(i), tree_, i);
}

void State::check_lookahead() const {
    if (flags_[Flag::nesterov])
        throw py::value_error(
            "state.nesterov must be False in lookahead(), not True: such parameters are the look-ahead point "
            "already");
    if (lookahead_has_lr(form_)) check_products("lr * momentum", Number::lr, Number::momentum);
}

Constants State::constants() const {
    if (excludes_dampening(flags_of(flags_)) && numbers_[Number::dampening].any_nonzero())
        throw py::value_error(
            "nesterov must be False where dampening is not 0, not True; set dampening to 0");
    if (flags_[Flag::decoupled_weight_decay])
        check_products("lr * weight_decay", Number::lr, Number::weight_decay);
    const bool per_array = std::any_of(numbers_.begin(), numbers_.end(),
                                       [](const Hyperparameter& number) { return number.per_array(); });
    Constants constants = {{}, per_array};
    for (std::size_t i = 0; i < (per_array ? dtypes_.size() : 1); ++i)
        for (const bool first : {true, false}) {
            const Numbers numbers = {numbers_[Number::lr].of(i), numbers_[Number::momentum].of(i),
                                     numbers_[Number::dampening].of(i), numbers_[Number::weight_decay].of(i)};
            constants.table.push_back(coefficients(form_, numbers, flags_of(flags_), first));
        }
    return constants;
}

const Constants& State::kept_constants() {
    if (!constants_are_stale_) return constants_;
    constants_ = constants();
    constants_are_stale_ = false;
    return constants_;
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
    const auto count = [](long long n, const char* what) {
        return ", " + std::to_string(n) + " " + what + (n == 1 ? "" : "s");
    };
    std::size_t elements = 0;
    for (std::size_t i = 0; i < velocities_.size(); ++i) elements += velocities_[i].size;
    std::string text = std::string("<State ") + name_of(form_);
    for (unsigned name = 0; name < n_numbers; ++name)
        text += std::string(", ") + number_names[name] + "=" +
                (numbers_[name].per_array() ? "per array" : repr_of(numbers_[name].value()));
    for (unsigned name = 0; name < n_flags; ++name)
        if (flags_[name]) text += std::string(", ") + flag_names[name];
    return text + count(static_cast<long long>(velocities_.size()), "array") +
           count(static_cast<long long>(elements), "element") + count(step_count_, "step") + ">";
}

void State::reset(py::handle path) {
    const Mark::Hold hold(mark, Mark::writing);
    std::size_t begin = 0, end = velocities_.size();
    if (!path.is_none()) {
        if (!py::isinstance<py::str>(path))
            throw py::type_error("path must be a string or None, not " + type_name(path));
        const std::vector<std::string> all = paths();
        const auto found = std::find(all.begin(), all.end(), text_of(path));
        if (found == all.end())
            throw py::value_error("path must be that of an array, as in state_dict()['velocity'], not " +
                                  brief(path));
        begin = static_cast<std::size_t>(found - all.begin());
        end = begin + 1;
    }
    for (std::size_t i = begin; i < end; ++i) {
        velocities_.set_zero(i);
        started_[i] = 0;
    }
}

}  // namespace fast_momentum
