#include "python/options.hpp"

#include <cmath>

#include "plain/isa.hpp"
#include "python/hyperparameters.hpp"

namespace fast_momentum {

namespace {

struct Requirement {
    bool (*range)(double);
    const char* text;
    bool is_rounded;  // to the dtypes of the arrays
    bool below_one;
};

// By Option.
constexpr Requirement requirements[n_options] = {
    {[](double x) { return x > 0; }, "be above 0, or None for no clipping", false, false},
    {[](double x) { return x > 0 && std::isfinite(x); }, "be finite and above 0, or None for no clipping",
     true, false},
    {[](double x) { return x >= 0 && x < 1; }, "be in [0, 1), or None for no average", true, true},
};
constexpr Requirement grad_scale = {[](double x) { return x > 0 && std::isfinite(x); },
                                    "be finite and above 0", true, false};

// In each dtype that arrays are worked on in.
void check_rounded(const char* name, double value, bool below_one, const Tree& tree,
                   const std::vector<unsigned char>& dtypes) {
    for (std::size_t i = 0; i < dtypes.size(); ++i) {
        if (i > 0 && dtypes[i] == dtypes[i - 1]) continue;
        const DtypeKernels& dtype = isa_in_use().kernels->dtypes[dtypes[i]];
        const double rounded = dtype.rounded(value);
        const char* requirement = !std::isfinite(rounded)      ? "stay finite"
                                  : rounded == 0 && value != 0 ? "stay above 0"
                                  : below_one && rounded == 1  ? "stay below 1"
                                                               : nullptr;
        if (requirement)
            throw py::value_error(std::string(name) + " must " + requirement + " when rounded to " +
                                  dtype.name + ", in which params" + tree.path(i) + " is worked on, not be " +
                                  repr_of(py::float_(value)) + "; use a float64 array or another value");
    }
}

double checked(const char* name, const Requirement& requirement, py::handle value, const Tree& tree,
               const std::vector<unsigned char>& dtypes) {
    const double number = checked_real(value, Path::of(name));
    if (!requirement.range(number))
        throw py::value_error(std::string(name) + " must " + requirement.text + ", not " +
                              repr_of(py::float_(number)));
    if (requirement.is_rounded) check_rounded(name, number, requirement.below_one, tree, dtypes);
    return number;
}

// None of them needs the package that has a bfloat16.
std::string dtype_name(py::handle value) {
    if (py::isinstance<py::str>(value)) return text_of(value);
    try {
        return text_of(py::module_::import("numpy").attr("dtype")(value).attr("name"));
    } catch (py::error_already_set&) {
        return "";
    }
}

}  // namespace

std::optional<double> checked_option(Option::Name name, py::handle value, const Tree& tree,
                                     const std::vector<unsigned char>& dtypes) {
    if (value.is_none()) return std::nullopt;
    return checked(option_names[name], requirements[name], value, tree, dtypes);
}

double checked_grad_scale(py::handle value, const Tree& tree, const std::vector<unsigned char>& dtypes) {
    return checked("grad_scale", grad_scale, value, tree, dtypes);
}

Nonfinite checked_nonfinite(py::handle value) {
    return Nonfinite(checked_name("nonfinite", value, nonfinite_names, n_nonfinite));
}

VelocityDtype checked_velocity_dtype(py::handle value, const Tree& tree,
                                     const std::vector<unsigned char>& dtypes) {
    if (value.is_none()) return {};
    const Kernels& kernels = *isa_in_use().kernels;
    const DtypeKernels& float32 = kernels.dtypes[0];
    const std::string given = dtype_name(value);
    VelocityDtype found;
    if (given == float32.name) found.name = float32.name;
    std::string names = std::string("'") + float32.name + "'";
    for (unsigned row = 0; row < n_storages; ++row) {
        if (given == kernels.storages[row].name) found = {Stored(row), kernels.storages[row].name};
        names += std::string(", '") + kernels.storages[row].name + "'";
    }
    if (!found.name)
        throw py::value_error("velocity_dtype must be None or one of " + names + ", not " + brief(value));
    for (std::size_t i = 0; i < dtypes.size(); ++i)
        if (dtypes[i] != 0)
            throw py::value_error("velocity_dtype must be None where an array is float64, as params" +
                                  tree.path(i) + " is, not '" + found.name + "'; use float32 arrays");
    return found;
}

}  // namespace fast_momentum
