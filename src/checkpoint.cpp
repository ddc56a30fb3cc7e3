// State -> plain containers and back: state_dict(), load_state_dict() and pickle.
#include <set>

#include "state.hpp"

namespace fast_momentum {

namespace {

constexpr int format = 1;

// `source` as a dict that has exactly the given keys.
py::dict checked_dict(py::handle source, const std::string& path, const std::set<std::string>& keys) {
    if (!PyDict_Check(source.ptr())) throw py::type_error(path + " must be a dict, not " + type_name(source));
    const py::dict dict = py::reinterpret_borrow<py::dict>(source);
    for (const std::string& key : keys)
        if (!dict.contains(key))
            throw py::value_error(path + " must have the key '" + key + "', not lack it");
    for (const auto& [key, value] : dict)
        if (!py::isinstance<py::str>(key) || !keys.count(key.cast<std::string>()))
            throw py::value_error(path + " must not have the key " + repr_of(key));
    return dict;
}

py::dict checked_checkpoint(py::handle source) {
    const py::dict dict = checked_dict(
        source, "state_dict", {"format", "form", "step_count", "hyperparameters", "velocity", "started"});
    const long long given = checked_count("state_dict['format']", dict["format"], 1);
    if (given != format)
        throw py::value_error("state_dict['format'] must be " + std::to_string(format) + ", not " +
                              std::to_string(given) + "; this version of fast_momentum reads no other");
    return dict;
}

Given given_in(const py::dict& checkpoint) {
    std::set<std::string> names(number_names, number_names + n_numbers);
    names.insert(flag_names, flag_names + n_flags);
    const py::dict hyperparameters =
        checked_dict(checkpoint["hyperparameters"], "state_dict['hyperparameters']", names);
    Given given;
    for (unsigned name = 0; name < n_numbers; ++name)
        given.numbers[name] = hyperparameters[number_names[name]];
    for (unsigned name = 0; name < n_flags; ++name) given.flags[name] = hyperparameters[flag_names[name]];
    return given;
}

}  // namespace

std::vector<std::string> State::paths() const {
    std::vector<std::string> paths = tree_.paths();
    const std::set<std::string> distinct(paths.begin(), paths.end());
    if (distinct.size() != paths.size())
        throw py::value_error("the keys of params must differ in their repr(), not name two arrays alike");
    return paths;
}

py::dict State::state_dict() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict hyperparameters, velocity, started, result;
    for (unsigned name = 0; name < n_numbers; ++name)
        hyperparameters[number_names[name]] = plain(number(Number::Name(name)));
    for (unsigned name = 0; name < n_flags; ++name) hyperparameters[flag_names[name]] = flags_[name];
    const std::vector<std::string> all = paths();
    for (std::size_t i = 0; i < all.size(); ++i) {
        velocity[all[i].c_str()] = velocities_.view(i).attr("copy")("K");
        started[all[i].c_str()] = static_cast<bool>(started_[i]);
    }
    result["format"] = format;
    result["form"] = name_of(form_);
    result["step_count"] = step_count_;
    result["hyperparameters"] = hyperparameters;
    result["velocity"] = velocity;
    result["started"] = started;
    return result;
}

void State::load_state_dict(py::handle source, bool strict) {
    const Mark::Hold hold(mark, Mark::writing);
    const py::dict checkpoint = checked_checkpoint(source);
    if (checked_form(checkpoint["form"]) != form_)
        throw py::value_error(std::string("state_dict['form'] must be '") + name_of(form_) +
                              "', as in init(), not " + repr_of(checkpoint["form"]));
    const long long step_count = checked_count("state_dict['step_count']", checkpoint["step_count"], 0);
    const Given given = given_in(checkpoint);
    std::vector<Hyperparameter> numbers;
    for (unsigned name = 0; name < n_numbers; ++name)
        numbers.push_back(checked_number(Number::Name(name), given.numbers[name]));
    std::array<bool, n_flags> flags;
    for (unsigned name = 0; name < n_flags; ++name)
        flags[name] = checked_flag(flag_names[name], given.flags[name]);

    const std::vector<std::string> all = paths();
    std::set<std::string> expected(all.begin(), all.end());
    if (!strict && PyDict_Check(checkpoint["velocity"].ptr()))
        for (const std::string& path : all)
            if (!checkpoint["velocity"].contains(path)) expected.erase(path);
    const py::dict velocity = checked_dict(checkpoint["velocity"], "state_dict['velocity']", expected);
    const py::dict started = checked_dict(checkpoint["started"], "state_dict['started']", expected);

    // Copies in the order of the velocities: what was checked is what is taken over, and taking over cannot
    // fail.
    struct Entry {
        std::size_t i;
        py::array values;
        bool started;
    };
    std::vector<Entry> entries;
    const py::module_ numpy = py::module_::import("numpy");
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (!expected.count(all[i])) continue;
        const std::string key = "[" + repr_of(py::str(all[i])) + "]", path = "state_dict['velocity']" + key;
        const py::object values = velocity[all[i].c_str()];
        check_velocity(tree_, velocities_, i, values, path);
        const Entry entry = {i, numpy.attr("empty_like")(velocities_.view(i)),
                             checked_flag("state_dict['started']" + key, started[all[i].c_str()])};
        numpy.attr("copyto")(entry.values, values);
        if (!entry.started && entry.values.attr("any")().cast<bool>())
            throw py::value_error(path + " must be zero where state_dict['started']" + key +
                                  " is False, not hold other values");
        entries.push_back(entry);
    }

    for (const Entry& entry : entries) {
        velocities_.set(entry.i, entry.values.data());
        started_[entry.i] = entry.started;
    }
    numbers_ = std::move(numbers);
    flags_ = flags;
    step_count_ = step_count;
    constants_are_stale_ = true;
}

// The arrays in the containers are those in the dict, so that pickle writes them once.
py::tuple State::pickled() {
    const py::dict checkpoint = state_dict();
    const py::dict velocity = checkpoint["velocity"];
    const std::vector<std::string> all = paths();
    return py::make_tuple(
        tree_.build([&](std::size_t i) -> py::object { return velocity[tree_.path(i).c_str()]; }),
        checkpoint);
}

std::unique_ptr<State> State::unpickled(py::handle containers, py::handle state_dict) {
    const py::dict checkpoint = checked_checkpoint(state_dict);
    Leaves leaves;
    std::unique_ptr<State> state(
        new State(containers, leaves, given_in(checkpoint), checked_form(checkpoint["form"])));
    state->load_state_dict(checkpoint, true);
    return state;
}

}  // namespace fast_momentum
