// Lends the memory of a State to what writes and reads files, which is Python (fast_momentum/_files).
#include <pybind11/stl.h>

#include <utility>

#include "python/ending.hpp"
#include "python/prefix.hpp"
#include "python/saved.hpp"
#include "python/state.hpp"

namespace fast_momentum {

// Of each array: slot, number, how it is stored if not as it is worked on, items, scales if it has some, and
// the range that its values must lie in where the arrays have made so many steps.
py::list State::memory(bool with_average, const std::vector<long long>& steps) const {
    py::list list;
    for (const Slot& slot : all_slots) {
        if (!(slot.place == Slot::average ? with_average : has_slot(slot.place))) continue;
        const Arrays& arrays = *kept_.slots[slot.place];
        for (std::size_t i = 0; i < arrays.size(); ++i) {
            if (!arrays.has(i)) continue;
            const Storage* storage = storage_of(arrays[i].stored);
            const bool is_zero = slot.is_of_the_rule() && slot.begins_zero && steps[i] == 0;
            list.append(py::make_tuple(
                slot.name, i, storage ? py::object(py::str(storage->name)) : py::none(), arrays.items(i),
                arrays.items_of_scales(i), is_zero || slot.as == Slot::dithered ? 0.0 : -infinity,
                is_zero ? 0.0 : infinity));
        }
    }
    return list;
}

py::object State::lend(py::handle params, const py::object& use) {
    const Mark::Hold hold(mark, Mark::reading);
    Call call;
    tree().match(params, "params", "init()", call.params);
    check_params(kept_, call, false);
    py::dict description = summary();
    description["paths"] = py::tuple(py::cast(paths()));
    description["steps"] = py::tuple(py::cast(counted(steps_)));
    if (rule_->history) description[rule_->history->name] = py::tuple(py::cast(histories_));
    for (const Slot& slot : all_slots)
        if (is_item(*rule_, slot)) description[slot.name] = has_slot(slot.place);
    return called(use,
                  py::make_tuple(description, listed(call.params), memory(has_slot(Slot::average), steps_)));
}

void State::fill(py::handle params, py::handle description, const py::object& use) {
    const Mark::Hold hold(mark, Mark::writing);
    Call call;
    tree().match(params, "params", "init()", call.params);
    check_params(kept_, call, true);

    Saved saved = checked_saved(items_of(description, root));
    Settings found = checked_settings(saved);
    const std::size_t n = kept_.size();
    const py::tuple steps = checked_tuple(saved.items, saved.steps_key, n);
    for (std::size_t i = 0; i < n; ++i)
        saved.steps.push_back(checked_steps(saved, item_path(saved.steps_key, tree().path(i)), steps[i]));
    saved.histories = checked_histories(saved.items);
    for (const Slot& slot : all_slots) {
        if (!is_item(*rule_, slot)) continue;
        const py::object given = saved.items.at(slot.name);
        const bool is_of_later_format = PyDict_Check(given.ptr());  // an empty one: checked_saved()
        const bool is_there = !is_of_later_format && checked_flag(item_path(slot.name), given);
        if (slot.place == Slot::average)
            saved.progress.average_started = is_there;
        else if (is_there != has_slot(slot.place))
            throw py::value_error(item_path(slot.name) + " must be " + repr_of(py::bool_(!is_there)) +
                                  ", as in state, not " + repr_of(py::bool_(is_there)));
    }
    saved.progress.swapped = saved.progress.swapped && saved.progress.average_started;
    check_average(saved);
    if (saved.progress.average_started) kept_.make_room_for_average();
    called(use, py::make_tuple(listed(call.params), memory(saved.progress.average_started, saved.steps)));
    take(std::move(found), std::move(saved));
}

}  // namespace fast_momentum
