// State -> plain containers and back: state_dict(), load_state_dict() and pickle.
#include <pybind11/stl.h>

#include <map>
#include <set>
#include <utility>

#include "python/state.hpp"

namespace fast_momentum {

namespace {

// Format 1 lacks what came with format 2: the options of a whole update, and what is kept for them.
constexpr int format = 2;
const std::string root = "state_dict";

using Items = std::map<std::string, py::object>;

std::string item_path(const char* name, const std::string& key) {
    return root + "['" + name + "'][" + repr_of(py::str(key)) + "]";
}

// The items of a dict, read through the base type.
Items items_of(py::handle source, const std::string& path) {
    if (!PyDict_Check(source.ptr())) throw py::type_error(path + " must be a dict, not " + type_name(source));
    Items items;
    PyObject *key, *value;
    for (Py_ssize_t position = 0; PyDict_Next(source.ptr(), &position, &key, &value);) {
        const py::object held = py::reinterpret_borrow<py::object>(value);
        if (!PyUnicode_Check(key))
            throw py::value_error(path + " must have strings as keys, not " + brief(key));
        items.emplace(text_of(key), held);
    }
    return items;
}

void check_items(const Items& items, const std::string& path, const std::set<std::string>& keys) {
    for (const std::string& key : keys)
        if (!items.count(key))
            throw py::value_error(path + " must have the key " + brief(py::str(key)) + ", not lack it");
    for (const auto& [key, value] : items)
        if (!keys.count(key)) throw py::value_error(path + " must not have the key " + brief(py::str(key)));
}

// The keys that came with format 2, with what they are where there is nothing of it.
Items added_items() {
    return {{"velocity_dtype", py::none()}, {"compensated", py::bool_(false)},
            {"skipped_steps", py::int_(0)}, {"grad_norm", py::none()},
            {"swapped", py::bool_(false)},  {"average", py::dict()},
            {"compensation", py::dict()},   {"master", py::dict()}};
}
Items added_hyperparameters() {
    return {{"clip_norm", py::none()},
            {"clip_value", py::none()},
            {"average_decay", py::none()},
            {"nonfinite", py::str(nonfinite_names[0])}};
}

// What a checkpoint has beside the arrays.
struct Summary {
    Form form;
    long long step_count, skipped_steps;
    std::optional<double> grad_norm;
    bool swapped;
    Given given;
};

// Adds what a checkpoint of format 1 lacks to `items`, but for the hyperparameters.
Summary checked_summary(Items& items) {
    if (!items.count("format")) check_items(items, root, {"format"});
    const long long given = checked_count(root + "['format']", items.at("format"), 1);
    if (given > format)
        throw py::value_error(root + "['format'] must be at most " + std::to_string(format) + ", not " +
                              std::to_string(given) + "; a newer version of fast_momentum has written it");
    if (given == 1) items.merge(added_items());
    std::set<std::string> keys = {"format", "form", "step_count", "hyperparameters", "velocity", "started"};
    for (const auto& [key, value] : added_items()) keys.insert(key);
    check_items(items, root, keys);

    const std::string path = root + "['hyperparameters']";
    Items hyperparameters = items_of(items.at("hyperparameters"), path);
    if (given == 1) hyperparameters.merge(added_hyperparameters());
    std::set<std::string> names(number_names, number_names + n_numbers);
    names.insert(flag_names, flag_names + n_flags);
    for (const auto& [key, value] : added_hyperparameters()) names.insert(key);
    check_items(hyperparameters, path, names);

    Summary summary = {checked_form(items.at("form")),
                       checked_count(root + "['step_count']", items.at("step_count"), 0),
                       checked_count(root + "['skipped_steps']", items.at("skipped_steps"), 0),
                       std::nullopt,
                       checked_flag(root + "['swapped']", items.at("swapped")),
                       {}};
    if (!items.at("grad_norm").is_none())
        summary.grad_norm = checked_real(items.at("grad_norm"), Path::of("state_dict['grad_norm']"));
    for (unsigned name = 0; name < n_numbers; ++name)
        summary.given.numbers[name] = hyperparameters.at(number_names[name]);
    for (unsigned name = 0; name < n_flags; ++name)
        summary.given.flags[name] = hyperparameters.at(flag_names[name]);
    for (unsigned name = 0; name < n_options; ++name)
        summary.given.options[name] = hyperparameters.at(option_names[name]);
    summary.given.nonfinite = hyperparameters.at("nonfinite");
    summary.given.velocity_dtype = items.at("velocity_dtype");
    summary.given.compensated = items.at("compensated");
    return summary;
}

// The items of a tuple, one for each array.
py::tuple checked_tuple(const Items& items, const char* key, std::size_t n) {
    const py::object given = items.at(key);
    if (!PyTuple_Check(given.ptr()) || PyTuple_GET_SIZE(given.ptr()) != static_cast<Py_ssize_t>(n))
        throw py::value_error(root + "['" + key + "'] must be a tuple of " + std::to_string(n) +
                              " items, not " + brief(given));
    return py::reinterpret_borrow<py::tuple>(given);
}

}  // namespace

std::vector<std::string> State::paths() const {
    std::vector<std::string> paths = tree_.paths();
    const std::set<std::string> distinct(paths.begin(), paths.end());
    if (distinct.size() != paths.size())
        throw py::value_error("the keys of params must differ in their repr(), not name two arrays alike");
    return paths;
}

py::dict State::summary() const {
    py::dict hyperparameters, summary;
    for (unsigned name = 0; name < n_numbers; ++name)
        hyperparameters[number_names[name]] = plain(numbers_[name].value());
    for (unsigned name = 0; name < n_flags; ++name) hyperparameters[flag_names[name]] = flags_[name];
    for (unsigned name = 0; name < n_options; ++name) hyperparameters[option_names[name]] = options_[name];
    hyperparameters["nonfinite"] = nonfinite_names[static_cast<unsigned>(nonfinite_)];
    summary["format"] = format;
    summary["form"] = name_of(form_);
    summary["velocity_dtype"] = velocity_dtype_.name;
    summary["compensated"] = compensated_;
    summary["step_count"] = step_count_;
    summary["skipped_steps"] = skipped_steps_;
    summary["grad_norm"] = grad_norm_;
    summary["swapped"] = swapped_;
    summary["hyperparameters"] = hyperparameters;
    return summary;
}

// What is kept beside the velocities, by its key in a checkpoint.
std::vector<State::KeptItem> State::kept_items() {
    return {{"average", average_started_ ? &*kept_.average : nullptr},
            {"compensation", kept_.compensation ? &*kept_.compensation : nullptr},
            {"master", kept_.master ? &*kept_.master : nullptr}};
}

py::dict State::state_dict() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict result = summary(), velocity, started;
    const std::vector<std::string> all = paths();
    for (std::size_t i = 0; i < all.size(); ++i) {
        velocity[py::str(all[i])] = kept_.velocity.copy(i);
        started[py::str(all[i])] = static_cast<bool>(started_[i]);
    }
    result["velocity"] = velocity;
    result["started"] = started;
    for (const auto& [key, arrays] : kept_items()) {
        py::dict values;
        for (std::size_t i = 0; arrays && i < all.size(); ++i)
            if (arrays->has(i)) values[py::str(all[i])] = arrays->copy(i);
        result[key] = values;
    }
    return result;
}

// A copy in the order of array i: what is checked is what will be taken over, and that cannot fail.
py::array State::checked_values(const Arrays& arrays, std::size_t i, py::handle values,
                                const std::string& path) const {
    check_loaded(tree_, arrays, i, values, path);
    py::array copy = arrays.empty(i);
    py::module_::import("numpy").attr("copyto")(copy, values);
    return copy;
}

State::Entry State::checked_entry(std::size_t i, py::handle values, py::handle started,
                                  const std::string& key) const {
    const std::string path = item_path("velocity", key), started_path = item_path("started", key);
    const Entry entry = {i, checked_values(kept_.velocity, i, values, path),
                         checked_flag(started_path, started)};
    if (!entry.started && entry.values.attr("any")().cast<bool>())
        throw py::value_error(path + " must be zero where " + started_path +
                              " is False, not hold other values");
    return entry;
}

void State::take_over(const std::vector<Entry>& entries) noexcept {
    for (const Entry& entry : entries) {
        kept_.velocity.set(entry.i, entry.values.data());
        started_[entry.i] = entry.started;
    }
}

namespace {

void check_fixed(const char* name, const py::object& given, const py::object& mine) {
    if (!given.equal(mine))
        throw py::value_error(root + "['" + name + "'] must be " + repr_of(mine) + ", as in init(), not " +
                              brief(given));
}

}  // namespace

void State::load_state_dict(py::handle source, bool strict) {
    const Mark::Hold hold(mark, Mark::writing);
    Items items = items_of(source, root);
    const Summary summary = checked_summary(items);
    for (const char* name : {"form", "velocity_dtype", "compensated"})
        check_fixed(name, items.at(name), this->summary()[name]);
    std::vector<Hyperparameter> numbers;
    for (unsigned name = 0; name < n_numbers; ++name)
        numbers.push_back(checked_number(Number::Name(name), summary.given.numbers[name]));
    std::array<bool, n_flags> flags;
    for (unsigned name = 0; name < n_flags; ++name)
        flags[name] = checked_flag(flag_names[name], summary.given.flags[name]);
    std::array<std::optional<double>, n_options> options;
    for (unsigned name = 0; name < n_options; ++name)
        options[name] = checked_option(Option::Name(name), summary.given.options[name], tree_, dtypes_);
    const Nonfinite nonfinite = checked_nonfinite(summary.given.nonfinite);

    const Items velocity = items_of(items.at("velocity"), root + "['velocity']");
    const Items started = items_of(items.at("started"), root + "['started']");
    const std::vector<std::string> all = paths();
    std::set<std::string> expected;
    for (const std::string& path : all)
        if (strict || velocity.count(path)) expected.insert(path);
    check_items(velocity, root + "['velocity']", expected);
    check_items(started, root + "['started']", expected);
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < all.size(); ++i)
        if (expected.count(all[i]))
            entries.push_back(checked_entry(i, velocity.at(all[i]), started.at(all[i]), all[i]));

    const bool has_average =
        !items_of(items.at("average"), root + "['average']").empty() || (all.empty() && average_started_);
    // What holds for all arrays cannot come with some of them.
    if (expected.size() < all.size() &&
        (has_average != average_started_ || (summary.swapped && has_average) != swapped_))
        throw py::value_error(
            root +
            " must have every array where it differs from state in having an average, or in its being "
            "swapped, not " +
            std::to_string(expected.size()) + " of " + std::to_string(all.size()));
    if (has_average) make_room_for_average();
    std::vector<KeptEntry> kept_entries;
    for (const auto& [key, kept] : kept_items()) {
        Arrays* arrays = has_average && key == std::string("average") ? &*kept_.average : kept;
        if (key == std::string("average") && !has_average) arrays = nullptr;
        const std::string path = root + "['" + key + "']";
        const Items given = items_of(items.at(key), path);
        std::set<std::string> wanted;
        for (std::size_t i = 0; arrays && i < all.size(); ++i)
            if (arrays->has(i) && expected.count(all[i])) wanted.insert(all[i]);
        check_items(given, path, wanted);
        for (std::size_t i = 0; i < all.size(); ++i)
            if (wanted.count(all[i]))
                kept_entries.push_back(
                    {arrays, i, checked_values(*arrays, i, given.at(all[i]), item_path(key, all[i]))});
    }

    take_over(entries);
    for (const KeptEntry& entry : kept_entries) entry.arrays->set(entry.i, entry.values.data());
    numbers_ = std::move(numbers);
    flags_ = flags;
    options_ = options;
    nonfinite_ = nonfinite;
    step_count_ = summary.step_count;
    skipped_steps_ = summary.skipped_steps;
    grad_norm_ = summary.grad_norm;
    average_started_ = has_average;
    swapped_ = summary.swapped && has_average;
    constants_are_stale_ = true;
}

// By position and not by path: the repr() of a key may be another one in another process.
py::tuple State::pickled() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict rest = summary();
    py::list started, params;
    for (const unsigned char flag : started_) started.append(static_cast<bool>(flag));
    for (const Stored stored : kept_.params) {
        const Storage* storage = storage_of(stored);
        params.append(storage ? py::object(py::str(storage->name)) : py::none());
    }
    rest["velocity"] = py::none();
    rest["started"] = py::tuple(started);
    rest["params"] = py::tuple(params);
    for (const auto& [key, arrays] : kept_items()) {
        py::list values;
        for (std::size_t i = 0; arrays && i < started_.size(); ++i)
            values.append(arrays->has(i) ? py::object(arrays->copy(i)) : py::none());
        rest[key] = arrays ? py::object(py::tuple(values)) : py::none();
    }
    return py::make_tuple(tree_.build([&](std::size_t i) { return kept_.velocity.copy(i); }), rest);
}

std::unique_ptr<State> State::unpickled(py::handle containers, py::handle rest) {
    Items items = items_of(rest, root);
    Leaves leaves;
    Tree tree(containers, "params", leaves);
    const std::size_t n = leaves.size();
    ParamDtypes dtypes = checked_dtypes(tree, leaves);
    if (items.count("params")) {  // not in format 1
        const py::tuple names = checked_tuple(items, "params", n);
        for (std::size_t i = 0; i < n; ++i)
            if (!names[i].is_none()) dtypes.stored[i] = stored_as(names[i], dtypes.dtypes[i]);
        items.erase("params");
    }
    const Summary summary = checked_summary(items);
    std::unique_ptr<State> state(new State(std::move(tree), leaves, dtypes, summary.given, summary.form));
    const py::tuple started = checked_tuple(items, "started", n);
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < n; ++i)
        entries.push_back(state->checked_entry(i, leaves[i], started[i], state->tree_.path(i)));
    state->take_over(entries);
    state->step_count_ = summary.step_count;
    state->skipped_steps_ = summary.skipped_steps;
    state->grad_norm_ = summary.grad_norm;
    if (PyTuple_Check(items.at("average").ptr())) {
        state->make_room_for_average();
        state->average_started_ = true;
        state->swapped_ = summary.swapped;
    }
    for (const auto& [key, arrays] : state->kept_items()) {
        if (!arrays) continue;
        const py::tuple values = checked_tuple(items, key, n);
        for (std::size_t i = 0; i < n; ++i)
            if (arrays->has(i))
                arrays->set(i,
                            state->checked_values(*arrays, i, values[i], item_path(key, state->tree_.path(i)))
                                .data());
    }
    return state;
}

}  // namespace fast_momentum
