#include "python/saved.hpp"

#include <algorithm>
#include <numeric>

#include "python/prefix.hpp"

namespace fast_momentum {

std::string item_path(const char* name) {
    return root + "['" + name + "']";
}
std::string item_path(const char* name, const std::string& key) {
    return item_path(name) + "[" + repr_of(py::str(key)) + "]";
}

Items items_of(py::handle source, const std::string& path) {
    if (!PyDict_Check(source.ptr())) throw py::type_error(path + " must be a dict, not " + type_name(source));
    Items items;
    for (const auto& [key, value] : held_items(source)) {
        if (!PyUnicode_Check(key.ptr()))
            throw py::value_error(path + " must have strings as keys, not " + brief(key));
        items.emplace(text_of(key), value);
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

bool is_item(const Rule& rule, const Slot& slot) {
    return !slot.is_of_the_rule() || rule.keeps_slot(slot.place);
}

Saved checked_saved(Items found) {
    Saved saved;
    Items& items = saved.items = std::move(found);
    if (!items.count("format")) check_items(items, root, {"format"});
    const long long given = checked_count(item_path("format"), items.at("format"), 1);
    if (given > checkpoint_format)
        throw py::value_error(item_path("format") + " must be at most " + std::to_string(checkpoint_format) +
                              ", not " + std::to_string(given) +
                              "; a newer version of fast_momentum has written it");
    if (given < 2)
        items.merge(
            Items{{"skipped_steps", py::int_(0)}, {"grad_norm", py::none()}, {"swapped", py::bool_(false)}});
    if (given < 3) {
        if (items.count("rule")) throw py::value_error(root + " must not have the key 'rule'");
        items.emplace("rule", py::str(all_rules()[0].name));
        saved.steps_key = "started";
    }
    for (const char* key : {"rule", "hyperparameters"})
        if (!items.count(key)) check_items(items, root, {key});
    const py::object name = items.at("rule");
    saved.rule = PyUnicode_Check(name.ptr()) ? find_rule(text_of(name)) : nullptr;
    if (!saved.rule)
        throw py::value_error(item_path("rule") + " must be the name of a rule, not " + brief(name) +
                              "; a newer version of fast_momentum may know it");

    Items hyperparameters = items_of(items.at("hyperparameters"), item_path("hyperparameters"));
    std::set<std::string> keys = {"format",  "rule",          "step_count", "skipped_steps",  "grad_norm",
                                  "swapped", saved.steps_key, "form",       "hyperparameters"};
    if (saved.rule->history) keys.insert(saved.rule->history->name);
    std::set<std::string> names;
    for (const Setting& setting : all_settings) {
        if (!is_keyword(*saved.rule, setting.place)) continue;
        (setting.fixed ? keys : names).insert(setting.name);
        if (setting.since > given)
            (setting.fixed ? items : hyperparameters)
                .emplace(setting.name, fallback(*saved.rule, setting.place));
    }
    for (const Slot& slot : all_slots) {
        if (!is_item(*saved.rule, slot)) continue;
        keys.insert(slot.name);
        if (slot.since > given) items.emplace(slot.name, py::dict());
    }
    check_items(items, root, keys);
    check_items(hyperparameters, item_path("hyperparameters"), names);
    for (const Setting& setting : all_settings)
        if (const Items& of = setting.fixed ? items : hyperparameters; of.count(setting.name))
            saved.given[setting.place] = of.at(setting.name);

    if (saved.rule->form) checked_form(*saved.rule, saved.given[Setting::form]);

    saved.progress.step_count = checked_count(item_path("step_count"), items.at("step_count"), 0);
    saved.progress.skipped_steps = checked_count(item_path("skipped_steps"), items.at("skipped_steps"), 0);
    saved.progress.swapped = checked_flag(item_path("swapped"), items.at("swapped"));
    if (!items.at("grad_norm").is_none())
        saved.progress.grad_norm = checked_real(items.at("grad_norm"), Path::of("state_dict['grad_norm']"));
    return saved;
}

// Before format 3, a checkpoint said only whether an array has made a step.
long long checked_steps(const Saved& saved, const std::string& path, py::handle value) {
    if (saved.steps_key == std::string("steps")) return checked_count(path, value, 0);
    return checked_flag(path, value) ? std::max(saved.progress.step_count, 1LL) : 0;
}

double checked_history(const Rule& rule, const std::string& path, py::handle value) {
    const double history = checked_real(value, Path::of(path.c_str()));
    if (rule.history->range.contains(history)) return history;
    throw py::value_error(path + " must " + rule.history->range.requirement + ", not " + repr_of(value));
}

py::tuple checked_tuple(const Items& items, const char* key, std::size_t n) {
    const py::object given = items.at(key);
    if (!PyTuple_Check(given.ptr()) || PyTuple_GET_SIZE(given.ptr()) != static_cast<Py_ssize_t>(n))
        throw py::value_error(item_path(key) + " must be a tuple of " + std::to_string(n) + " items, not " +
                              brief(given));
    return py::reinterpret_borrow<py::tuple>(given);
}

Axes checked_axes(const std::string& path, py::handle value, std::size_t ndim) {
    Axes axes, each(ndim);
    std::iota(each.begin(), each.end(), 0);
    if (PyTuple_Check(value.ptr()))
        for (const py::handle axis : value) axes.push_back(checked_count(path, axis, 0));
    if (PyTuple_Check(value.ptr()) && axes.size() == ndim &&
        std::is_permutation(axes.begin(), axes.end(), each.begin()))
        return axes;
    throw py::value_error(path + " must be a tuple of each axis once, not " + brief(value));
}

void check_fixed(const char* name, const py::object& given, const py::object& mine) {
    if (!given.equal(mine))
        throw py::value_error(item_path(name) + " must be " + repr_of(mine) + ", as in init(), not " +
                              brief(given));
}

}  // namespace fast_momentum
