// What a checkpoint says, but for its arrays: checked, and brought to today's format.
#pragma once

#include <pybind11/pybind11.h>

#include <set>
#include <string>
#include <vector>

#include "python/settings.hpp"
#include "python/state.hpp"

namespace fast_momentum {

// What is yet to be taken over.
struct Saved {
    Items items;  // completed to those of today's format, but for the steps
    const Rule* rule = nullptr;
    Given given;
    Progress progress;
    const char* steps_key = "steps";
    std::vector<long long> steps;
    std::vector<double> histories;
};

inline const std::string root = "state_dict";

std::string item_path(const char* name);
std::string item_path(const char* name, const std::string& key);

// The items of a dict, read through the base type.
Items items_of(py::handle source, const std::string& path);
// They must have these keys and no others.
void check_items(const Items& items, const std::string& path, const std::set<std::string>& keys);

// Whether checkpoints of the rule have that slot, be it empty.
bool is_item(const Rule& rule, const Slot& slot);

// All of it but for what there is one of for each array.
Saved checked_saved(Items found);

long long checked_steps(const Saved& saved, const std::string& path, py::handle value);
double checked_history(const Rule& rule, const std::string& path, py::handle value);
// The items of a tuple, one for each array.
py::tuple checked_tuple(const Items& items, const char* key, std::size_t n);
Axes checked_axes(const std::string& path, py::handle value, std::size_t ndim);
void check_fixed(const char* name, const py::object& given, const py::object& mine);

}  // namespace fast_momentum
