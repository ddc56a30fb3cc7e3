#include "python/state.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "plain/threads.hpp"

namespace fast_momentum {

using namespace py::literals;

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

namespace {

// What is kept beside the velocities. Whether there will be an average is for later.
Kept kept_for(const Leaves& leaves, const ParamDtypes& params, Stored velocity, bool compensated) {
    const std::size_t n = leaves.size();
    Kept kept = {params.stored, Arrays(leaves, params.dtypes, std::vector<Stored>(n, velocity)), {}, {}, {}};
    if (compensated) kept.compensation.emplace(kept.velocity, params.stored);
    std::vector<Stored> master;
    for (const Stored stored : params.stored)
        master.push_back(stored == Stored::native ? Stored::absent : Stored::native);
    if (!compensated && std::count(master.begin(), master.end(), Stored::native) > 0)
        kept.master.emplace(kept.velocity, master);
    return kept;
}

}  // namespace

State::State(Tree tree, const Leaves& leaves, const ParamDtypes& params, const Given& given, Form form)
    : form_(form),
      tree_(std::move(tree)),
      dtypes_(params.dtypes),
      velocity_dtype_(checked_velocity_dtype(given.velocity_dtype, tree_, dtypes_)),
      compensated_(checked_flag("compensated", given.compensated)),
      kept_(kept_for(leaves, params, velocity_dtype_.stored, compensated_)),
      nonfinite_(checked_nonfinite(given.nonfinite)),
      started_(leaves.size(), 0) {
    for (unsigned name = 0; name < n_numbers; ++name)
        numbers_.push_back(checked_number(Number::Name(name), given.numbers[name]));
    for (unsigned name = 0; name < n_flags; ++name) set_flag(Flag::Name(name), given.flags[name]);
    for (unsigned name = 0; name < n_options; ++name) set_option(Option::Name(name), given.options[name]);
}

State::State(const State& other)
    : form_(other.form_),
      tree_(other.tree_),
      dtypes_(other.dtypes_),
      velocity_dtype_(other.velocity_dtype_),
      compensated_(other.compensated_),
      kept_(other.kept_),
      numbers_(other.numbers_),
      flags_(other.flags_),
      options_(other.options_),
      nonfinite_(other.nonfinite_),
      started_(other.started_),
      step_count_(other.step_count_),
      skipped_steps_(other.skipped_steps_),
      grad_norm_(other.grad_norm_),
      average_started_(other.average_started_),
      swapped_(other.swapped_) {}

std::unique_ptr<State> State::init(py::handle params, const Given& given, Form form) {
    Leaves leaves;
    Tree tree(params, "params", leaves);
    const ParamDtypes dtypes = checked_dtypes(tree, leaves);
    std::unique_ptr<State> state(new State(std::move(tree), leaves, dtypes, given, form));
    state->check_init();
    state->kept_constants();
    if (state->kept_.master) state->copy_into(*state->kept_.master, leaves);
    if (state->request().pass.averages) {
        state->copy_to_average(leaves);
        state->average_started_ = true;
    }
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

void State::set_option(Option::Name name, py::handle value) {
    options_[name] = checked_option(name, value, tree_, dtypes_);
    constants_are_stale_ = true;
}

void State::set_nonfinite(py::handle value) {
    nonfinite_ = checked_nonfinite(value);
    constants_are_stale_ = true;
}

void State::check_options() const {
    if (options_[Option::clip_norm] && options_[Option::clip_value])
        throw py::value_error("clip_norm must be None where clip_value is set, not " +
                              repr_of(py::float_(*options_[Option::clip_norm])) +
                              "; set one of them to None");
    const bool narrow = std::any_of(kept_.params.begin(), kept_.params.end(),
                                    [](Stored stored) { return stored != Stored::native; });
    if (options_[Option::average_decay] && compensated_ && narrow)
        throw py::value_error(
            "average_decay must be None for float16 or bfloat16 params with compensated=True, not " +
            repr_of(py::float_(*options_[Option::average_decay])) +
            "; their master copies, with compensated=False, "
            "have an average");
}

void State::check_products(const char* what, Number::Name a, Number::Name b) const {
    const bool per_array = numbers_[a].per_array() || numbers_[b].per_array();
    for (std::size_t i = 0; i < dtypes_.size(); ++i)
        if (per_array || i == 0 || dtypes_[i] != dtypes_[i - 1])
            check_product(what, numbers_[a].of(i), numbers_[b].of(i), kept_.velocity.dtype(i), tree_, i);
}

void State::check_lookahead() const {
    if (flags_[Flag::nesterov])
        throw py::value_error(
            "state.nesterov must be False in lookahead(), not True: such parameters are the look-ahead point "
            "already");
    if (lookahead_has_lr(form_)) check_products("lr * momentum", Number::lr, Number::momentum);
}

Constants State::constants() const {
    check_not_swapped();
    if (excludes_dampening(flags_of(flags_)) && numbers_[Number::dampening].any_nonzero())
        throw py::value_error(
            "nesterov must be False where dampening is not 0, not True; set dampening to 0");
    if (flags_[Flag::decoupled_weight_decay])
        check_products("lr * weight_decay", Number::lr, Number::weight_decay);
    const bool per_array = std::any_of(numbers_.begin(), numbers_.end(),
                                       [](const Hyperparameter& number) { return number.per_array(); });
    Constants constants = {{}, per_array ? std::size_t(2) : 0};
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
    check_options();
    constants_ = constants();
    const std::optional<double>&clip_norm = options_[Option::clip_norm],
          &clip_value = options_[Option::clip_value];
    const std::optional<double>& decay = options_[Option::average_decay];
    request_.needs_norm = clip_norm || nonfinite_ != Nonfinite::propagate;
    request_.clip_norm = clip_norm;
    request_.nonfinite = nonfinite_;
    request_.pass.prepares = clip_norm || clip_value;
    request_.pass.preparation = {1, 1, clip_value.value_or(std::numeric_limits<double>::infinity())};
    request_.pass.averages = decay.has_value();
    request_.pass.average_decay = decay.value_or(0);
    request_.is_plain = is_plain(request_);
    if (decay) make_room_for_average();
    constants_are_stale_ = false;
    return constants_;
}

// ---- options ----

void State::check_has_average() const {
    if (!average_started_)
        throw py::value_error(
            "state must have an average, not none; set average_decay, which starts one at the next step");
}

void State::check_not_swapped() const {
    if (swapped_)
        throw py::value_error(
            "params must be the parameters, not their average; call state.swap_average(params) first");
}

void State::toggle_swapped() noexcept {
    swapped_ = !swapped_;
    constants_are_stale_ = true;
}

Request State::request(py::handle grad_scale, py::handle zero_grads) const {
    Request request = request_;
    Pass& pass = request.pass;
    if (grad_scale) pass.preparation.scale = checked_grad_scale(grad_scale, tree_, dtypes_);
    if (zero_grads) pass.zeroes_grads = checked_flag("zero_grads", zero_grads);
    pass.prepares = pass.prepares || pass.preparation.scale != 1;
    request.is_plain = is_plain(request);
    return request;
}

bool State::is_plain(const Request& request) const {
    return kept_.is_plain() && request.pass.is_plain() && !request.needs_norm;
}

void State::make_room_for_average() {
    if (!kept_.average)
        kept_.average.emplace(kept_.velocity, std::vector<Stored>(dtypes_.size(), Stored::native));
}

void State::copy_to_average(const Leaves& params) {
    if (average_started_) return;
    make_room_for_average();
    copy_into(*kept_.average, params);
}

// The parameters, whatever their dtypes and layouts.
void State::copy_into(Arrays& arrays, const Leaves& params) {
    for (std::size_t i = 0; i < params.size(); ++i) {
        if (arrays[i].stored == Stored::absent) continue;
        const py::array values = arrays.empty(i);
        py::module_::import("numpy").attr("copyto")(values, py::handle(params[i]));
        arrays.set(i, values.data());
    }
}

// ---- use ----

void State::finish_step(const Leaves& grads) noexcept {
    for (std::size_t i = 0; i < started_.size(); ++i)
        if (grads[i] != Py_None) started_[i] = 1;
    average_started_ = average_started_ || request_.pass.averages;
    ++step_count_;
}

py::object State::velocity_containers() {
    if (velocity_dtype_.stored == Stored::native)
        return tree_.build([&](std::size_t i) -> py::object { return kept_.velocity.view(i); });
    const Mark::Hold hold(mark, Mark::reading);
    return tree_.build([&](std::size_t i) -> py::object {
        py::array values = kept_.velocity.copy(i);
        values.attr("setflags")("write"_a = false);
        return values;
    });
}

py::object State::average_containers() const {
    if (!average_started_) return py::none();
    return tree_.build([&](std::size_t i) -> py::object { return kept_.average->view(i); });
}

std::string State::repr() const {
    const auto count = [](long long n, const char* what) {
        return ", " + std::to_string(n) + " " + what + (n == 1 ? "" : "s");
    };
    std::size_t elements = 0;
    for (std::size_t i = 0; i < kept_.velocity.size(); ++i) elements += kept_.velocity[i].size;
    std::string text = std::string("<State ") + name_of(form_);
    for (unsigned name = 0; name < n_numbers; ++name)
        text += std::string(", ") + number_names[name] + "=" +
                (numbers_[name].per_array() ? "per array" : repr_of(numbers_[name].value()));
    for (unsigned name = 0; name < n_flags; ++name)
        if (flags_[name]) text += std::string(", ") + flag_names[name];
    for (unsigned name = 0; name < n_options; ++name)
        if (options_[name])
            text += std::string(", ") + option_names[name] + "=" + repr_of(py::float_(*options_[name]));
    if (nonfinite_ != Nonfinite::propagate)
        text += std::string(", nonfinite=") + nonfinite_names[static_cast<unsigned>(nonfinite_)];
    if (velocity_dtype_.name) text += std::string(", velocity_dtype=") + velocity_dtype_.name;
    if (compensated_) text += ", compensated";
    if (swapped_) text += ", swapped";
    return text + count(static_cast<long long>(kept_.velocity.size()), "array") +
           count(static_cast<long long>(elements), "element") + count(step_count_, "step") + ">";
}

void State::reset(py::handle path) {
    const Mark::Hold hold(mark, Mark::writing);
    std::size_t begin = 0, end = kept_.velocity.size();
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
        kept_.velocity.set_zero(i);
        if (kept_.compensation) kept_.compensation->set_zero(i);
        started_[i] = 0;
    }
}

}  // namespace fast_momentum
