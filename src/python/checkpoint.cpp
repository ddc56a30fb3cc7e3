// State -> plain containers and back: state_dict(), load_state_dict() and pickle.
#include <pybind11/stl.h>

#include <set>
#include <utility>

#include "python/prefix.hpp"
#include "python/saved.hpp"
#include "python/state.hpp"

namespace fast_momentum {

namespace {

// Checks a value for array i, which checkpoints call `key`, and its steps; and takes it over into `kept`.
void read(Saved& saved, Kept& kept, const Slot& slot, std::size_t i, py::handle values,
          const std::string& key, py::handle steps) {
    Arrays& arrays = *kept.slots[slot.place];
    const std::string path = item_path(slot.name, key), steps_path = item_path(saved.steps_key, key);
    check_loaded(kept.params.tree, arrays, i, values, path);
    if (slot.as == Slot::dithered && arrays.any_negative(i, values))
        throw py::value_error(path + " must be >= 0 in each element, not hold others");
    arrays.assign(i, values, Stored::native);
    if (!slot.is_of_the_rule()) return;
    saved.steps[i] = checked_steps(saved, steps_path, steps);
    if (slot.begins_zero && saved.steps[i] == 0 && !arrays.all_as_at_first(i, values))
        throw py::value_error(path + " must be zero where " + steps_path + " is " + repr_of(steps) +
                              ", not hold other values");
}

}  // namespace

std::vector<long long> counted(std::vector<long long> counts) {
    for (long long& count : counts) count = counted(count);
    return counts;
}

// ---- out ----

bool State::has_slot(Slot::Name slot) const {
    return slot == Slot::average ? progress().average_started : kept_.slots[slot].has_value();
}

py::dict State::summary() const {
    const Settings settings = settings_.copy();
    const Progress progress = this->progress();
    const Rule& rule = *rule_;
    py::dict hyperparameters, summary;
    summary["format"] = checkpoint_format;
    summary["rule"] = rule.name;
    summary["form"] = settings.shown(Setting::form);
    for (const Setting& setting : all_settings)
        if (is_keyword(rule, setting.place) && setting.place != Setting::form)
            (setting.fixed ? summary : hyperparameters)[setting.name] = plain(settings.shown(setting.place));
    summary["step_count"] = counted(progress.step_count);
    summary["skipped_steps"] = counted(progress.skipped_steps);
    summary["grad_norm"] = progress.grad_norm;
    summary["swapped"] = progress.swapped;
    summary["hyperparameters"] = hyperparameters;
    return summary;
}

py::dict State::state_dict() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict result = summary(), steps, histories;
    const std::vector<std::string> all = paths();
    for (std::size_t i = 0; i < all.size(); ++i) {
        steps[py::str(all[i])] = counted(steps_[i]);
        histories[py::str(all[i])] = histories_[i];
    }
    for (const Slot& slot : all_slots) {
        py::dict values;
        for (std::size_t i = 0; has_slot(slot.place) && i < all.size(); ++i)
            if (kept_.has(slot.place, i)) values[py::str(all[i])] = kept_.slots[slot.place]->copy(i);
        if (!is_item(*rule_, slot)) continue;
        result[slot.name] = values;
        if (slot.place == kept_.made.front()) result["steps"] = steps;
    }
    if (rule_->history) result[rule_->history->name] = histories;
    return result;
}

// By position and not by path: the repr() of a key may be another one in another process.
py::tuple State::pickled() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict rest = summary();
    py::list params;
    for (const Stored stored : kept_.params.stored) {
        const Storage* storage = storage_of(stored);
        params.append(storage ? py::object(py::str(storage->name)) : py::none());
    }
    rest["params"] = py::tuple(params);
    py::list axes;
    for (const Axes& of_one : kept_.params.axes) axes.append(py::tuple(py::cast(of_one)));
    rest["axes"] =
        py::tuple(axes);  // arrays that NumPy has pickled know no orders but those of C and Fortran
    rest["steps"] = py::tuple(py::cast(counted(steps_)));
    if (rule_->history) rest[rule_->history->name] = py::tuple(py::cast(histories_));
    for (const Slot& slot : all_slots) {
        py::list values;
        for (std::size_t i = 0; has_slot(slot.place) && i < kept_.size(); ++i)
            values.append(kept_.has(slot.place, i) ? py::object(kept_.slots[slot.place]->copy(i))
                                                   : py::none());
        if (!is_item(*rule_, slot)) continue;
        rest[slot.name] = has_slot(slot.place) ? py::object(py::tuple(values)) : py::none();
    }
    rest[all_slots[kept_.made.front()].name] = py::none();  // which says what the containers are
    return py::make_tuple(tree().build([&](std::size_t i) { return kept_.model().copy(i); }), rest);
}

// ---- in ----

// What is fixed must be as it is here.
Settings State::checked_settings(Saved& saved) const {
    const py::dict mine = summary();
    check_fixed("rule", saved.items.at("rule"), mine["rule"]);
    for (const Setting& setting : all_settings) {
        py::object& given = saved.given[setting.place];
        if (!setting.fixed || !given) continue;
        check_fixed(setting.name, given, mine[setting.name]);
        given = mine[setting.name];  // which it equals, of whatever type it is
    }
    Settings found(*rule_, saved.given, kept_.params);
    check_together(found);
    return found;
}

// Exchanged with parameters that are compensated, it would be rounded.
void State::check_average(const Saved& saved) const {
    if (saved.progress.average_started && !rule_->takes_setting(Setting::average_decay))
        throw py::value_error(item_path("average") + " must be empty in the rule " + rule_->name +
                              ", which has none, not hold arrays");
    const bool compensated =
        settings_.read([](const Settings& settings) { return settings.common()[Setting::compensated] != 0; });
    if (saved.progress.average_started && compensated && kept_.has_narrow_params())
        throw py::value_error(item_path("average") +
                              " must be empty for float16 or bfloat16 params with compensated=True, not hold "
                              "arrays; their master copies, with compensated=False, have an average");
}

void State::load_state_dict(py::handle source, py::handle strict) {
    const bool whole = checked_flag("strict", strict);
    const Mark::Hold hold(mark, Mark::writing);
    Saved saved = checked_saved(items_of(source, root));
    Settings found = checked_settings(saved);

    const char* model = all_slots[kept_.made.front()].name;
    const Items in_model = items_of(saved.items.at(model), item_path(model));
    const Items steps = items_of(saved.items.at(saved.steps_key), item_path(saved.steps_key));
    const std::vector<std::string> all = paths();
    std::set<std::string> expected;
    for (const std::string& path : all)
        if (whole || in_model.count(path)) expected.insert(path);
    check_items(in_model, item_path(model), expected);
    check_items(steps, item_path(saved.steps_key), expected);
    saved.histories = histories_;
    if (rule_->history) {
        const char* name = rule_->history->name;
        const Items histories = items_of(saved.items.at(name), item_path(name));
        check_items(histories, item_path(name), expected);
        for (std::size_t i = 0; i < all.size(); ++i)
            if (expected.count(all[i]))
                saved.histories[i] = checked_history(*rule_, item_path(name, all[i]), histories.at(all[i]));
    }

    Progress& progress = saved.progress;
    const Progress mine = this->progress();
    progress.average_started = !items_of(saved.items.at("average"), item_path("average")).empty() ||
                               (all.empty() && mine.average_started);
    progress.swapped = progress.swapped && progress.average_started;
    // What holds for all arrays cannot come with some of them.
    if (expected.size() < all.size() &&
        (progress.average_started != mine.average_started || progress.swapped != mine.swapped))
        throw py::value_error(
            root +
            " must have every array where it differs from state in having an average, or in its being "
            "swapped, not " +
            std::to_string(expected.size()) + " of " + std::to_string(all.size()));
    check_average(saved);
    if (progress.average_started) kept_.make_room_for_average();

    saved.steps = steps_;
    Kept loaded = kept_;
    for (const Slot& slot : all_slots) {
        if (!saved.items.count(slot.name)) continue;
        const bool wanted = slot.place == Slot::average ? progress.average_started : has_slot(slot.place);
        const Items given = items_of(saved.items.at(slot.name), item_path(slot.name));
        std::set<std::string> keys;
        for (std::size_t i = 0; wanted && i < all.size(); ++i)
            if (kept_.has(slot.place, i) && expected.count(all[i])) keys.insert(all[i]);
        check_items(given, item_path(slot.name), keys);
        for (std::size_t i = 0; i < all.size(); ++i)
            if (keys.count(all[i])) read(saved, loaded, slot, i, given.at(all[i]), all[i], steps.at(all[i]));
    }
    for (const Slot& slot : all_slots)
        if (auto& arrays = kept_.slots[slot.place]) arrays->take(*loaded.slots[slot.place]);
    take(std::move(found), std::move(saved));
}

// All but the arrays.
void State::take(Settings&& settings, Saved&& saved) noexcept {
    settings_.change([&](Settings& mine) { std::swap(mine, settings); });
    steps_ = std::move(saved.steps);
    histories_ = std::move(saved.histories);
    progress_.change([&](Progress& progress) { progress = saved.progress; });
    is_stale_ = true;
}

// By position.
std::vector<double> State::checked_histories(const Items& items) const {
    std::vector<double> checked = histories_;
    if (!rule_->history) return checked;
    const char* name = rule_->history->name;
    const py::tuple histories = checked_tuple(items, name, checked.size());
    for (std::size_t i = 0; i < checked.size(); ++i)
        checked[i] = checked_history(*rule_, item_path(name, tree().path(i)), histories[i]);
    return checked;
}

std::unique_ptr<State> State::unpickled(py::handle containers, py::handle rest) {
    Items items = items_of(rest, root);
    Leaves leaves;
    Tree tree(containers, "params", leaves);
    const std::size_t n = leaves.size();
    Params params = checked_params(std::move(tree), leaves);
    if (items.count("params")) {  // not in format 1
        const py::tuple names = checked_tuple(items, "params", n);
        for (std::size_t i = 0; i < n; ++i)
            if (!names[i].is_none()) params.stored[i] = stored_as(names[i], params.dtypes[i]);
        items.erase("params");
    }
    if (items.count("axes")) {
        const py::tuple axes = checked_tuple(items, "axes", n);
        for (std::size_t i = 0; i < n; ++i)
            params.axes[i] =
                checked_axes(item_path("axes", params.tree.path(i)), axes[i], params.axes[i].size());
        items.erase("axes");
    }
    Saved saved = checked_saved(std::move(items));
    std::unique_ptr<State> state(new State(*saved.rule, std::move(params), leaves, saved.given));
    state->check_together(state->in_force_);
    saved.progress.average_started = PyTuple_Check(saved.items.at("average").ptr());
    state->check_average(saved);
    if (saved.progress.average_started) state->kept_.make_room_for_average();
    saved.progress.swapped = saved.progress.swapped && saved.progress.average_started;
    state->progress_.change([&](Progress& progress) { progress = saved.progress; });
    saved.steps = state->steps_;
    saved.histories = state->checked_histories(saved.items);
    const py::tuple steps = checked_tuple(saved.items, saved.steps_key, n);
    for (const Slot& slot : all_slots) {
        if (!state->has_slot(slot.place)) continue;
        const bool in_containers = slot.place == state->kept_.made.front();
        const py::tuple values = in_containers ? py::tuple() : checked_tuple(saved.items, slot.name, n);
        for (std::size_t i = 0; i < n; ++i)
            if (state->kept_.has(slot.place, i))
                read(saved, state->kept_, slot, i,
                     in_containers ? py::handle(leaves[i]) : py::handle(values[i]), state->tree().path(i),
                     steps[i]);
    }
    state->steps_ = std::move(saved.steps);
    state->histories_ = std::move(saved.histories);
    return state;
}

}  // namespace fast_momentum
