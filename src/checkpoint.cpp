// State -> plain containers and back: state_dict(), load_state_dict() and pickle.
#include <map>
#include <set>

#include "state.hpp"

namespace fast_momentum {

namespace {

constexpr int format = 1;
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

// What a checkpoint has beside the arrays.
struct Summary {
    Form form;
    long long step_count;
    Given given;
};

Summary checked_summary(const Items& items) {
    check_items(items, root, {"format", "form", "step_count", "hyperparameters", "velocity", "started"});
    const long long given = checked_count(root + "['format']", items.at("format"), 1);
    if (given != format)
        throw py::value_error(root + "['format'] must be " + std::to_string(format) + ", not " +
                              std::to_string(given) + "; this version of fast_momentum reads no other");
    const std::string path = root + "['hyperparameters']";
    const Items hyperparameters = items_of(items.at("hyperparameters"), path);
    std::set<std::string> names(number_names, number_names + n_numbers);
    names.insert(flag_names, flag_names + n_flags);
    check_items(hyperparameters, path, names);
    Summary summary = {checked_form(items.at("form")),
                       checked_count(root + "['step_count']", items.at("step_count"), 0),
                       {}};
    for (unsigned name = 0; name < n_numbers; ++name)
        summary.given.numbers[name] = hyperparameters.at(number_names[name]);
    for (unsigned name = 0; name < n_flags; ++name)
        summary.given.flags[name] = hyperparameters.at(flag_names[name]);
    return summary;
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
    summary["format"] = format;
    summary["form"] = name_of(form_);
    summary["step_count"] = step_count_;
    summary["hyperparameters"] = hyperparameters;
    return summary;
}

py::object State::copy_of_velocity(std::size_t i) const {
    return velocities_.view(i).attr("copy")("K");
}

py::dict State::state_dict() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict result = summary(), velocity, started;
    const std::vector<std::string> all = paths();
    for (std::size_t i = 0; i < all.size(); ++i) {
        velocity[py::str(all[i])] = copy_of_velocity(i);
        started[py::str(all[i])] = static_cast<bool>(started_[i]);
    }
    result["velocity"] = velocity;
    result["started"] = started;
    return result;
}

// A copy in the order of the velocity: what is checked is what will be taken over, and that cannot fail.
State::Entry State::checked_entry(std::size_t i, py::handle values, py::handle started,
                                  const std::string& key) const {
    const std::string path = item_path("velocity", key), started_path = item_path("started", key);
    check_velocity(tree_, velocities_, i, values, path);
    const py::module_ numpy = py::module_::import("numpy");
    const Entry entry = {i, numpy.attr("empty_like")(velocities_.view(i)),
                         checked_flag(started_path, started)};
    numpy.attr("copyto")(entry.values, values);
    if (!entry.started && entry.values.attr("any")().cast<bool>())
        throw py::value_error(path + " must be zero where " + started_path +
                              " is False, not hold other values");
    return entry;
}

void State::take_over(const std::vector<Entry>& entries) noexcept {
    for (const Entry& entry : entries) {
        velocities_.set(entry.i, entry.values.data());
        started_[entry.i] = entry.started;
    }
}

void State::load_state_dict(py::handle source, bool strict) {
    const Mark::Hold hold(mark, Mark::writing);
    const Items items = items_of(source, root);
    const Summary summary = checked_summary(items);
    if (summary.form != form_)
        throw py::value_error(root + "['form'] must be '" + name_of(form_) + "', as in init(), not '" +
                              name_of(summary.form) + "'");
    std::vector<Hyperparameter> numbers;
    for (unsigned name = 0; name < n_numbers; ++name)
        numbers.push_back(checked_number(Number::Name(name), summary.given.numbers[name]));
    std::array<bool, n_flags> flags;
    for (unsigned name = 0; name < n_flags; ++name)
        flags[name] = checked_flag(flag_names[name], summary.given.flags[name]);

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

    take_over(entries);
    numbers_ = std::move(numbers);
    flags_ = flags;
    step_count_ = summary.step_count;
    constants_are_stale_ = true;
}

// By position and not by path: the repr() of a key may be another one in another process.
py::tuple State::pickled() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict rest = summary();
    py::list started;
    for (const unsigned char flag : started_) started.append(static_cast<bool>(flag));
    rest["velocity"] = py::none();
    rest["started"] = py::tuple(started);
    return py::make_tuple(tree_.build([&](std::size_t i) { return copy_of_velocity(i); }), rest);
}

std::unique_ptr<State> State::unpickled(py::handle containers, py::handle rest) {
    const Items items = items_of(rest, root);
    const Summary summary = checked_summary(items);
    Leaves leaves;
    std::unique_ptr<State> state(new State(containers, leaves, summary.given, summary.form));
    const py::object started = items.at("started");
    if (!PyTuple_Check(started.ptr()) ||
        PyTuple_GET_SIZE(started.ptr()) != static_cast<Py_ssize_t>(leaves.size()))
        throw py::value_error(root + "['started'] must be a tuple of " + std::to_string(leaves.size()) +
                              " flags, not " + brief(started));
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < leaves.size(); ++i)
        entries.push_back(state->checked_entry(
            i, leaves[i], PyTuple_GET_ITEM(started.ptr(), static_cast<Py_ssize_t>(i)), state->tree_.path(i)));
    state->take_over(entries);
    state->step_count_ = summary.step_count;
    return state;
}

}  // namespace fast_momentum
