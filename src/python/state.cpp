#include "python/state.hpp"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "plain/arithmetic.hpp"
#include "plain/limits.hpp"
#include "python/prefix.hpp"

namespace fast_momentum {

using namespace py::literals;

// ---- construction ----

State::State(const Rule& rule, Params params, const Leaves& leaves, const Given& given)
    : settings_(Settings(rule, given, params)),
      rule_(&settings_.copy().rule()),
      kept_(std::move(params)),
      steps_(leaves.size(), 0),
      histories_(leaves.size(), 1),
      in_force_(settings_.copy()) {
    kept_.make_slots(*rule_, in_force_.common(), leaves);
}

std::unique_ptr<State> State::init(const Rule& rule, py::handle params, const Given& given,
                                   bool kept_elsewhere) {
    Leaves leaves;
    Tree tree(params, "params", leaves);
    Params checked = checked_params(std::move(tree), leaves);
    checked.kept_elsewhere = kept_elsewhere;
    std::unique_ptr<State> state(new State(rule, std::move(checked), leaves, given));
    state->check_init(state->in_force_);
    state->kept_constants();
    for (const Slot::Name slot : {Slot::master, Slot::iterate})
        if (auto& arrays = state->kept_.slots[slot]) state->copy_into(*arrays, leaves);
    if (state->pass({}, {}).averages()) {
        state->copy_to_average(leaves);
        state->progress_.change([](Progress& progress) { progress.average_started = true; });
    }
    return state;
}

std::unique_ptr<State> State::copy() {
    const Mark::Hold hold(mark, Mark::reading);
    return std::unique_ptr<State>(new State(*this));
}

void State::copy_into(Arrays& arrays, const Leaves& params) {
    for (std::size_t i = 0; i < params.size(); ++i)
        if (arrays.has(i)) arrays.assign(i, params[i], kept_.params.stored[i]);
}

// ---- settings, and how they go together ----

py::object State::shown(Setting::Name name) const {
    if (name != Setting::form && !is_keyword(*rule_, name))
        throw py::attribute_error(std::string("a State of the rule ") + rule_->name + " has no " +
                                  all_settings[name].name);
    return settings_.read([&](const Settings& settings) { return settings.shown(name); });
}

bool State::is_set(Setting::Name name) const {
    const bool is_number = all_settings[name].kind == Kind::number;
    return settings_.read([&](const Settings& settings) {
        return is_number ? settings.any_nonzero(name) : settings.any_number(name);
    });
}

void State::set(Setting::Name name, py::handle value) {
    shown(name);
    Item item = checked_item(*rule_, name, value, kept_.params);
    settings_.change([&](Settings& settings) { settings.exchange(name, item); });
    is_stale_ = true;
}

// No option is accepted and then ignored; later, a schedule may end at momentum 0.
void State::check_init(const Settings& settings) const {
    const bool nesterov = settings.common()[Setting::nesterov] != 0;
    if (nesterov && rule_->takes_setting(Setting::beta1) && settings.all_zero(Setting::beta1))
        throw py::value_error("beta1 must be above 0 where nesterov is True, not 0.0");
    if (!rule_->takes_setting(Setting::momentum) || !settings.all_zero(Setting::momentum)) return;
    if (nesterov) throw py::value_error("momentum must be above 0 where nesterov is True, not 0.0");
    if (settings.any_nonzero(Setting::dampening))
        throw py::value_error("momentum must be above 0 where dampening is not 0, not 0.0");
}

void State::check_together(const Settings& settings) const {
    check_options(settings);
    check_rule(settings);
}

void State::check_options(const Settings& settings) const {
    const Values& values = settings.common();
    if (values.has(Setting::clip_norm) && values.has(Setting::clip_value))
        throw py::value_error("clip_norm must be None where clip_value is set, not " +
                              repr_of(settings.shown(Setting::clip_norm)) + "; set one of them to None");
    if (values.has(Setting::average_decay) && values[Setting::compensated] && kept_.has_narrow_params())
        throw py::value_error(
            "average_decay must be None for float16 or bfloat16 params with compensated=True, not " +
            repr_of(settings.shown(Setting::average_decay)) +
            "; their master copies, with compensated=False, have an average");
    for (std::size_t i = 0; i < kept_.size(); ++i) {
        const double lower = settings.of(Setting::lower, i), upper = settings.of(Setting::upper, i);
        if (lower > upper)
            throw py::value_error("lower must be at most upper, " + repr_of(py::float_(upper)) +
                                  " for params" + tree().path(i) + ", not " + repr_of(py::float_(lower)));
    }
}

void State::check_rule(const Settings& settings) const {
    const Values& values = settings.common();
    if (excludes_dampening(values) && settings.any_nonzero(Setting::dampening))
        throw py::value_error(
            "nesterov must be False where dampening is not 0, not True; set dampening to 0");
    if (!values[Setting::nesterov] && values.has(Setting::momentum_decay))
        throw py::value_error("momentum_decay must be None where nesterov is False, not " +
                              repr_of(settings.shown(Setting::momentum_decay)) + "; set nesterov to True");
    if (values[Setting::decoupled_weight_decay])
        check_products(settings, "lr * weight_decay", Setting::lr, Setting::weight_decay);
    if (rule_->takes_setting(Setting::l1)) check_products(settings, "lr * l1", Setting::lr, Setting::l1);
    if (rule_->ages) check_first_step(settings);
}

// Its step size is lr, made larger by what corrects the velocity.
void State::check_first_step(const Settings& settings) const {
    for (std::size_t i = 0; i < kept_.size(); ++i) {
        const DtypeKernels& dtype = kept_.model().dtype(i);
        const Values values = settings.values(i);
        const double scale = coefficients(*rule_, values, {}).scale;
        if (const char* requirement = missed(values[Setting::lr] != 0, dtype.rounded(scale)))
            throw py::value_error(std::string("lr of a first step, with its correction, must ") +
                                  requirement + " when rounded to " + kept_.params.worked_in(i) +
                                  ", not be " + repr_of(py::float_(scale)) +
                                  "; use a float64 array or another lr");
    }
}

void State::check_products(const Settings& settings, const char* what, Setting::Name a,
                           Setting::Name b) const {
    const bool per_array = settings.per_array(a) || settings.per_array(b);
    const std::vector<Dtype>& dtypes = kept_.params.dtypes;
    for (std::size_t i = 0; i < dtypes.size(); ++i) {
        if (!per_array && i > 0 && dtypes[i] == dtypes[i - 1]) continue;
        const DtypeKernels& dtype = kept_.model().dtype(i);
        const double x = settings.of(a, i), y = settings.of(b, i);
        if (const char* requirement = missed_product(x, y, dtype))
            throw py::value_error(std::string(what) + " must " + requirement + " when rounded to " +
                                  kept_.params.worked_in(i) + ", not be " + repr_of(py::float_(x)) + " * " +
                                  repr_of(py::float_(y)) + "; use a float64 array or other values");
    }
}

void State::check_lookahead(const Settings& settings) const {
    if (rule_->ahead == Rule::none)
        throw py::value_error(std::string("state must have a look-ahead in lookahead(), which the rule ") +
                              rule_->name + " has not; only momentum has one");
    if (settings.common()[Setting::nesterov])
        throw py::value_error(
            "state.nesterov must be False in lookahead(), not True: such parameters are the look-ahead point "
            "already");
    if (rule_->ahead == Rule::lr_momentum)
        check_products(settings, "lr * momentum", Setting::lr, Setting::momentum);
}

Constants State::lookahead_constants() const {
    const Settings settings = settings_.copy();
    check_lookahead(settings);
    check_not_swapped();
    check_rule(settings);
    Constants constants;
    make_constants(settings, constants);
    return constants;
}

Age State::age(std::size_t i) const {
    return {steps_[i], histories_[i]};
}

void State::make_constants(const Settings& settings, Constants& made) const {
    const Rule& rule = *rule_;
    const auto are_alike = [](const auto& of) {
        return std::adjacent_find(of.begin(), of.end(), std::not_equal_to<>()) == of.end();
    };
    const bool differ = rule.ages && (!are_alike(steps_) || !are_alike(histories_));
    const bool per_array = settings.any_per_array() || differ;
    made.table.clear();
    made.stride = per_array ? 2 : 0;
    for (std::size_t i = 0; i < (per_array ? kept_.size() : std::min<std::size_t>(kept_.size(), 1)); ++i) {
        const Values values = settings.values(i);
        const Coefficients first = coefficients(rule, values, rule.ages ? age(i) : Age{});
        made.table.push_back(first);
        made.table.push_back(rule.ages ? first : coefficients(rule, values, {1}));
    }
}

void State::renew_constants() {
    if (!is_stale_) return make_constants(in_force_, constants_);
    is_stale_ = false;  // what is set from here on counts from the next step
    try {
        Settings found = settings_.copy();
        check_options(found);
        check_not_swapped();
        check_rule(found);
        make_constants(found, constants_);
        in_force_ = std::move(found);
        has_bounds_ = in_force_.any_number(Setting::lower) || in_force_.any_number(Setting::upper);
        plan_ = Plan(kept_, pass({}, {}));
        if (in_force_.common().has(Setting::average_decay)) kept_.make_room_for_average();
    } catch (...) {
        is_stale_ = true;
        throw;
    }
}

Pass State::pass(py::handle grad_scale, py::handle zero_grads) const {
    Pass pass;
    pass.settings = &in_force_.common();
    pass.has_bounds = has_bounds_;
    if (grad_scale) pass.grad_scale = checked_for_all("grad_scale", positive, grad_scale, kept_.params);
    if (zero_grads) pass.zeroes_grads = checked_flag("zero_grads", zero_grads);
    return pass;
}

// ---- the average ----

void State::check_has_average() const {
    if (!rule_->takes_setting(Setting::average_decay))
        throw py::value_error(std::string("state must have an average, which the rule ") + rule_->name +
                              " has not");
    if (!progress().average_started)
        throw py::value_error(
            "state must have an average, not none; set average_decay, which starts one at the next step");
}

void State::check_not_swapped() const {
    if (progress().swapped)
        throw py::value_error(
            "params must be the parameters, not their average; call state.swap_average(params) first");
}

void State::toggle_swapped() noexcept {
    progress_.change([](Progress& progress) { progress.swapped = !progress.swapped; });
    is_stale_ = true;
}

void State::copy_to_average(const Leaves& params) {
    if (!progress().average_started) copy_into(*kept_.slots[Slot::average], params);
}

// ---- use ----

void State::finish_step(const Leaves& grads) noexcept {
    const bool ages = rule_->ages;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
        if (grads[i] == Py_None) continue;
        if (ages) histories_[i] = constants_.of(i, steps_[i])->next_history;
        ++steps_[i];
    }
    const bool averages = in_force_.common().has(Setting::average_decay);
    progress_.change([&](Progress& progress) {
        progress.average_started = progress.average_started || averages;
        ++progress.step_count;
    });
}

py::object State::containers(Slot::Name name) {
    if (all_slots[name].is_of_the_rule() && !rule_->keeps_slot(name))
        throw py::attribute_error(std::string("a State of the rule ") + rule_->name + " has no " +
                                  all_slots[name].name);
    if (!has_slot(name)) return py::none();
    const Arrays& arrays = *kept_.slots[name];
    if (arrays.size() == 0 || arrays[0].stored == Stored::native)
        return tree().build_read_only([&](std::size_t i) -> py::object { return arrays.view(i); });
    const Mark::Hold hold(mark, Mark::reading);
    const StandardArithmetic arithmetic;
    return tree().build_read_only([&](std::size_t i) -> py::object {
        py::array values = arrays.copy(i);
        values.attr("setflags")("write"_a = false);
        return values;
    });
}

std::string State::repr() const {
    const Settings settings = settings_.copy();
    const Progress progress = this->progress();
    const auto count = [](long long n, const char* what) {
        return ", " + std::to_string(n) + " " + what + (n == 1 ? "" : "s");
    };
    std::string text = std::string("<State ") + rule_->title();
    for (const Kind kind : {Kind::number, Kind::bound, Kind::flag, Kind::option, Kind::choice,
                            Kind::choice_or_none, Kind::choice_or_number, Kind::dtype})
        for (const Setting& setting : all_settings) {
            const Setting::Name name = setting.place;
            if (setting.kind != kind || name == Setting::form || name == Setting::compensated ||
                !is_keyword(*rule_, name) || (kind != Kind::number && settings.is_fallback(name)))
                continue;
            text += std::string(", ") + setting.name;
            if (kind != Kind::flag)
                text +=
                    "=" + (settings.per_array(name) ? "per array" : text_of(py::str(settings.shown(name))));
        }
    if (settings.common()[Setting::compensated]) text += ", compensated";
    if (progress.swapped) text += ", swapped";
    std::size_t elements = 0;
    for (std::size_t i = 0; i < kept_.size(); ++i)
        elements += kept_.model()[i].size / kept_.model().dtype(i).reals;
    return text + count(static_cast<long long>(kept_.size()), "array") +
           count(static_cast<long long>(elements), "element") + count(counted(progress.step_count), "step") +
           ">";
}

std::vector<std::string> State::paths() const {
    std::vector<std::string> paths;
    for (std::size_t i = 0; i < tree().n_leaves(); ++i) paths.push_back(tree().path(i));
    const std::set<std::string> distinct(paths.begin(), paths.end());
    if (distinct.size() != paths.size())
        throw py::value_error("the keys of params must differ in their repr(), not name two arrays alike");
    return paths;
}

void State::reset(py::handle path) {
    const Mark::Hold hold(mark, Mark::writing);
    std::size_t begin = 0, end = kept_.size();
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
        for (const Slot& slot : all_slots)
            if (slot.begins_zero && kept_.has(slot.place, i)) kept_.slots[slot.place]->set_zero(i);
        steps_[i] = 0;
        histories_[i] = 1;
    }
}

// ---- velocities that follow lr ----

namespace {

[[noreturn]] void refuse_velocity(const std::string& message, const std::string& path) {
    py::object error = py::reinterpret_borrow<py::object>(PyExc_ValueError)(message);
    if (!path.empty()) error.attr("add_note")("for params" + path);
    PyErr_SetObject(PyExc_ValueError, error.ptr());
    throw py::error_already_set();
}

}  // namespace

void State::scale_velocities(const std::vector<double>& factors) {
    if (factors.size() != kept_.size())
        throw py::value_error("factors must have one for each array, not be " +
                              std::to_string(factors.size()));
    const Mark::Hold hold(mark, Mark::writing);
    kept_.slots[Slot::velocity]->take(scaled_velocity(factors));
}

Arrays State::scaled_velocity(const std::vector<double>& factors) const {
    Arrays scaled(kept_.velocity());
    for (std::size_t i = 0; i < factors.size(); ++i) {
        if (factors[i] == 1 || !scaled.any_nonzero(i) || scaled.scale(i, factors[i])) continue;
        const Storage* storage = storage_of(scaled[i].stored);
        refuse_velocity(std::string("the velocity must stay finite in ") +
                            (storage ? storage->name : scaled.dtype(i).name) + " when multiplied with " +
                            repr_of(py::float_(factors[i])),
                        tree().path(i));
    }
    return scaled;
}

// The gain of an array's rule with these settings, at the lr of others.
double State::gain(const Settings& settings, std::size_t i, const Settings& of_lr) const {
    Values values = settings.values(i);
    values[Setting::lr] = of_lr.of(Setting::lr, i);
    return coefficients(*rule_, values, {1}).gain;
}

bool State::has_lr_in_velocity(const Settings& settings, const Settings& found) const {
    for (std::size_t i = 0; i < kept_.size(); ++i)
        if (gain(settings, i, settings) != gain(settings, i, found)) return true;
    return false;
}

// What makes each velocity that of gradients which all came in at the new lr.
std::vector<double> State::lr_corrections(const Settings& settings, const Settings& found) const {
    std::vector<double> factors(kept_.size(), 1);
    for (std::size_t i = 0; i < factors.size(); ++i) {
        const double before = gain(settings, i, settings), now = gain(settings, i, found);
        if (before == now || !kept_.velocity().any_nonzero(i)) continue;
        if (before == 0)
            refuse_velocity(
                std::string("state.lr must be above 0 before it changes, where a velocity of the form ") +
                    rule_->title() + " is not zero, not 0.0; call reset(), or set rescale_velocity=False",
                tree().path(i));
        factors[i] = now / before;
    }
    return factors;
}

// False, and nothing is changed, where another thread has set lr meanwhile.
bool State::try_set_lr(Item& item, bool rescales) {
    const Settings before = settings_.copy();
    Settings found = before;
    Item copy = item;
    found.exchange(Setting::lr, copy);
    std::optional<Mark::Hold> hold;
    std::optional<Arrays> scaled;
    if (rescales && has_lr_in_velocity(before, found)) {
        hold.emplace(mark, Mark::writing);
        scaled.emplace(scaled_velocity(lr_corrections(before, found)));
    }
    return settings_.change([&](Settings& settings) {
        if (!settings.shown(Setting::lr).is(before.shown(Setting::lr))) return false;
        if (scaled) kept_.slots[Slot::velocity]->take(*scaled);
        settings.exchange(Setting::lr, item);
        return true;
    });
}

void State::set_lr(py::handle lr, py::handle rescale_velocity) {
    const bool rescales = checked_flag("rescale_velocity", rescale_velocity);
    Item item = checked_item(*rule_, Setting::lr, lr, kept_.params);
    while (!try_set_lr(item, rescales)) continue;
    is_stale_ = true;
}

}  // namespace fast_momentum
