// One value as the user gives it -> checked: a real number, a flag, a count, a name; and a prefix, a number
// or numbers along the structure of params.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "plain/rules.hpp"
#include "python/arrays.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// Reads a setting of Kind::number along the structure of params into `numbers`, one for each leaf. Returns it
// as it is read back: a float, or nested tuples and read-only mappings. Throws, with the requirement that a
// value misses.
py::object read_prefix(const Setting& setting, const Rule& rule, py::handle value, const Params& params,
                       std::vector<double>& numbers);

// A real number of Python or NumPy. `way_out` is for those who give an array.
double checked_real(py::handle value, const Path& path, const char* way_out = "");
bool checked_flag(const std::string& name, py::handle value);
// A whole number that is not below `least`, nor so large that it could not be counted up.
long long checked_count(const std::string& name, py::handle value, long long least);
// 'float32', 'int8'
std::string quoted(const std::vector<const char*>& names);
// A string that is one of `names`: its place among them.
unsigned checked_name(const char* what, py::handle value, const std::vector<const char*>& names);

// A setting that only other forms of the rule have is not what it must be in this one.
[[noreturn]] void refuse_in_form(const Setting& setting, const Rule& rule, const std::string& path,
                                 const std::string& requirement, const std::string& given);

// Plain tuples and dicts in the place of what read_prefix() returns.
py::object plain(py::handle value);

}  // namespace fast_momentum
