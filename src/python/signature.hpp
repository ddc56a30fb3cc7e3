// How the arguments of a call come to a function. pybind11's own way with keywords reads a null pointer where
// no memory is left.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
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
    // The first line of `doc` is how the function is called.
    Signature(std::string name, const std::string& doc, std::vector<Parameter> parameters);

    // Those of a call, in the order of the parameters. Refuses other calls.
    Arguments bound(const py::args& args, const py::kwargs& kwargs) const;

  private:
    std::string name_, line_;
    std::vector<Parameter> parameters_;
};

// What a call with other arguments says.
[[noreturn]] void refuse_call(const std::string& name, const std::string& line, std::size_t n_positional,
                              py::handle keywords);

}  // namespace fast_momentum
