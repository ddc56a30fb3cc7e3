// What is refused about arrays, and how it is said.
#pragma once

#include <string>

#include "python/arrays.hpp"

namespace fast_momentum {

// What to do about an array that `made_by` would mend. A copy of an array that is written has to be kept: an
// update of a copy that nobody has is lost.
std::string copy_way_out(const std::string& made_by, bool is_written);

// float16, >f4, [('x', '<f4')]
std::string dtype_text(const ArrayStruct& array);
// (2, 3)
std::string shape_text(const std::ptrdiff_t* shape, int ndim);

[[noreturn]] void refuse_type(py::handle object, const std::string& path, bool is_written);
// `wanted` is the name of a dtype that meets the requirement, `number` its number.
[[noreturn]] void refuse_dtype(const ArrayStruct& array, const std::string& path,
                               const std::string& requirement, const char* wanted, int number,
                               bool is_written);
// An array of a dtype that nothing can be worked on in.
[[noreturn]] void refuse_param(const ArrayStruct& array, const std::string& path, bool is_written);
// `model` is the array that has the shape; empty for what was given to init().
[[noreturn]] void refuse_shape(const ArrayStruct& array, const Arrays& arrays, std::size_t i,
                               const std::string& path, const std::string& model);
// A gradient of some rows; `where` it has to be an array.
[[noreturn]] void refuse_rows(const std::string& path, const char* where);
[[noreturn]] void refuse_misaligned(const std::string& path, std::size_t itemsize, bool is_written);
[[noreturn]] void refuse_read_only(const std::string& path);

}  // namespace fast_momentum
