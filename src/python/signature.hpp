// How the arguments of a call come to a function. pybind11's own way with keywords reads a null pointer where
// no memory is left.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

namespace fast_momentum {

namespace py = pybind11;

struct Parameter {
    py::str name;
    py::object otherwise = {};  // what it is where it is not given; null where it must be given
    bool is_positional = true;  // and not by keyword alone
};

using Arguments = std::vector<py::object>;

class Signature {
  public:
    Signature(std::string name, std::vector<Parameter> parameters)
        : name_(std::move(name)), parameters_(std::move(parameters)) {}

    // Those of a call, in the order of the parameters. Refuses other calls.
    Arguments bound(const py::args& args, const py::kwargs& kwargs) const;

  private:
    std::string name_;
    std::vector<Parameter> parameters_;
};

// What a call with other arguments says; `n_placed` of them were given by their place.
[[noreturn]] void refuse_call(const std::string& name, const std::vector<Parameter>& parameters,
                              std::size_t n_placed, const py::kwargs& keywords);

}  // namespace fast_momentum
