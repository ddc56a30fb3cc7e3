// State -> plain containers and back: state_dict(), load_state_dict() and pickle.
#include <pybind11/stl.h>

#include <map>
#include <set>
#include <utility>

#include "python/prefix.hpp"
#include "python/state.hpp"

namespace fast_momentum {

namespace {

using Items = std::map<std::string, py::object>;

// What a checkpoint holds, checked and yet to be taken over.
struct Saved {
    Items items;  // completed to those of today's format, but for the steps
    const Rule* rule = nullptr;
    Given given;
    Progress progress;
    const char* steps_key = "steps";
    std::vector<long long> steps;
    std::vector<double> momentum_products;
};

const std::string root = "state_dict";

std::string item_path(const char* name) {
    return root + "['" + name + "']";
}
std::string item_path(const char* name, const std::string& key) {
    return item_path(name) + "[" + repr_of(py::str(key)) + "]";
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

constexpr const char* products_key = "momentum_products";

bool has_products(const Rule& rule) {
    return is_keyword(rule, Setting::momentum_decay);
}

// Whether checkpoints of the rule have that slot, be it empty.
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
    if (has_products(*saved.rule)) keys.insert(products_key);
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

double checked_product(const std::string& path, py::handle value) {
    const double product = checked_real(value, Path::of(path.c_str()));
    if (product >= 0 && product <= 1) return product;
    throw py::value_error(path + " must be in [0, 1], not " + repr_of(value));
}

// The items of a tuple, one for each array.
py::tuple checked_tuple(const Items& items, const char* key, std::size_t n) {
    const py::object given = items.at(key);
    if (!PyTuple_Check(given.ptr()) || PyTuple_GET_SIZE(given.ptr()) != static_cast<Py_ssize_t>(n))
        throw py::value_error(item_path(key) + " must be a tuple of " + std::to_string(n) + " items, not " +
                              brief(given));
    return py::reinterpret_borrow<py::tuple>(given);
}

void check_fixed(const char* name, const py::object& given, const py::object& mine) {
    if (!given.equal(mine))
        throw py::value_error(item_path(name) + " must be " + repr_of(mine) + ", as in init(), not " +
                              brief(given));
}

// Checks a value for array i, which checkpoints call `key`, and its steps; and takes it over into `kept`.
void read(Saved& saved, Kept& kept, const Slot& slot, std::size_t i, py::handle values,
          const std::string& key, py::handle steps) {
    Arrays& arrays = *kept.slots[slot.place];
    const std::string path = item_path(slot.name, key), steps_path = item_path(saved.steps_key, key);
    check_loaded(kept.params.tree, arrays, i, values, path);
    if (slot.as == Slot::dithered && values.attr("__lt__")(0).attr("any")().cast<bool>())
        throw py::value_error(path + " must be >= 0 in each element, not hold others");
    arrays.assign(i, values);
    if (!slot.is_of_the_rule()) return;
    saved.steps[i] = checked_steps(saved, steps_path, steps);
    if (saved.steps[i] == 0 && values.attr("any")().cast<bool>())
        throw py::value_error(path + " must be zero where " + steps_path + " is " + repr_of(steps) +
                              ", not hold other values");
}

}  // namespace

// ---- out ----

bool State::has_slot(Slot::Name slot) const {
    return slot == Slot::average ? progress_.average_started : kept_.slots[slot].has_value();
}

py::dict State::summary() const {
    const Rule& rule = settings_.rule();
    py::dict hyperparameters, summary;
    summary["format"] = checkpoint_format;
    summary["rule"] = rule.name;
    summary["form"] = settings_.shown(Setting::form);
    for (const Setting& setting : all_settings)
        if (is_keyword(rule, setting.place) && setting.place != Setting::form)
            (setting.fixed ? summary : hyperparameters)[setting.name] = plain(settings_.shown(setting.place));
    summary["step_count"] = progress_.step_count;
    summary["skipped_steps"] = progress_.skipped_steps;
    summary["grad_norm"] = progress_.grad_norm;
    summary["swapped"] = progress_.swapped;
    summary["hyperparameters"] = hyperparameters;
    return summary;
}

py::dict State::state_dict() {
    const Mark::Hold hold(mark, Mark::reading);
    py::dict result = summary(), steps, products;
    const std::vector<std::string> all = paths();
    for (std::size_t i = 0; i < all.size(); ++i) {
        steps[py::str(all[i])] = steps_[i];
        products[py::str(all[i])] = momentum_products_[i];
    }
    for (const Slot& slot : all_slots) {
        py::dict values;
        for (std::size_t i = 0; has_slot(slot.place) && i < all.size(); ++i)
            if (kept_.has(slot.place, i)) values[py::str(all[i])] = kept_.slots[slot.place]->copy(i);
        if (!is_item(settings_.rule(), slot)) continue;
        result[slot.name] = values;
        if (slot.place == Slot::velocity) result["steps"] = steps;
    }
    if (has_products(settings_.rule())) result[products_key] = products;
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
    rest["steps"] = py::tuple(py::cast(steps_));
    if (has_products(settings_.rule())) rest[products_key] = py::tuple(py::cast(momentum_products_));
    for (const Slot& slot : all_slots) {
        py::list values;
        for (std::size_t i = 0; has_slot(slot.place) && i < kept_.size(); ++i)
            values.append(kept_.has(slot.place, i) ? py::object(kept_.slots[slot.place]->copy(i))
                                                   : py::none());
        if (!is_item(settings_.rule(), slot)) continue;
        rest[slot.name] = has_slot(slot.place) ? py::object(py::tuple(values)) : py::none();
    }
    rest["velocity"] = py::none();  // which says what the containers are
    return py::make_tuple(tree().build([&](std::size_t i) { return kept_.velocity().copy(i); }), rest);
}

// ---- in ----

void State::load_state_dict(py::handle source, py::handle strict) {
    const bool whole = checked_flag("strict", strict);
    const Mark::Hold hold(mark, Mark::writing);
    Saved saved = checked_saved(items_of(source, root));
    const py::dict mine = summary();
    check_fixed("rule", saved.items.at("rule"), mine["rule"]);
    for (const Setting& setting : all_settings) {
        py::object& given = saved.given[setting.place];
        if (!setting.fixed || !given) continue;
        check_fixed(setting.name, given, mine[setting.name]);
        given = mine[setting.name];  // which it equals, of whatever type it is
    }
    Settings found(settings_.rule(), saved.given, kept_.params);

    const Items velocity = items_of(saved.items.at("velocity"), item_path("velocity"));
    const Items steps = items_of(saved.items.at(saved.steps_key), item_path(saved.steps_key));
    const std::vector<std::string> all = paths();
    std::set<std::string> expected;
    for (const std::string& path : all)
        if (whole || velocity.count(path)) expected.insert(path);
    check_items(velocity, item_path("velocity"), expected);
    check_items(steps, item_path(saved.steps_key), expected);
    saved.momentum_products = momentum_products_;
    if (has_products(settings_.rule())) {
        const Items products = items_of(saved.items.at(products_key), item_path(products_key));
        check_items(products, item_path(products_key), expected);
        for (std::size_t i = 0; i < all.size(); ++i)
            if (expected.count(all[i]))
                saved.momentum_products[i] =
                    checked_product(item_path(products_key, all[i]), products.at(all[i]));
    }

    Progress& progress = saved.progress;
    progress.average_started = !items_of(saved.items.at("average"), item_path("average")).empty() ||
                               (all.empty() && progress_.average_started);
    progress.swapped = progress.swapped && progress.average_started;
    // What holds for all arrays cannot come with some of them.
    if (expected.size() < all.size() &&
        (progress.average_started != progress_.average_started || progress.swapped != progress_.swapped))
        throw py::value_error(
            root +
            " must have every array where it differs from state in having an average, or in its being "
            "swapped, not " +
            std::to_string(expected.size()) + " of " + std::to_string(all.size()));
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
    settings_ = std::move(found);
    for (const Slot& slot : all_slots)
        if (auto& arrays = kept_.slots[slot.place]) arrays->take(*loaded.slots[slot.place]);
    steps_ = std::move(saved.steps);
    momentum_products_ = std::move(saved.momentum_products);
    progress_ = progress;
    is_stale_ = true;
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
    Saved saved = checked_saved(std::move(items));
    std::unique_ptr<State> state(new State(*saved.rule, std::move(params), leaves, saved.given));
    if (PyTuple_Check(saved.items.at("average").ptr())) {
        state->kept_.make_room_for_average();
        saved.progress.average_started = true;
    }
    saved.progress.swapped = saved.progress.swapped && saved.progress.average_started;
    state->progress_ = saved.progress;
    saved.steps = state->steps_;
    const py::tuple steps = checked_tuple(saved.items, saved.steps_key, n);
    for (const Slot& slot : all_slots) {
        if (!state->has_slot(slot.place)) continue;
        const bool in_containers = slot.place == Slot::velocity;
        const py::tuple values = in_containers ? py::tuple() : checked_tuple(saved.items, slot.name, n);
        for (std::size_t i = 0; i < n; ++i)
            if (state->kept_.has(slot.place, i))
                read(saved, state->kept_, slot, i,
                     in_containers ? py::handle(leaves[i]) : py::handle(values[i]), state->tree().path(i),
                     steps[i]);
    }
    state->steps_ = std::move(saved.steps);
    if (has_products(*saved.rule)) {
        const py::tuple products = checked_tuple(saved.items, products_key, n);
        for (std::size_t i = 0; i < n; ++i)
            state->momentum_products_[i] =
                checked_product(item_path(products_key, state->tree().path(i)), products[i]);
    }
    return state;
}

}  // namespace fast_momentum
