#include "python/messages.hpp"

#include "plain/isa.hpp"

namespace fast_momentum {

namespace {

bool can_cast(const ArrayStruct& array, const char* wanted, const char* casting) {
    return py::module_::import("numpy")
        .attr("can_cast")(py::handle(array.descr), wanted, casting)
        .cast<bool>();
}

py::tuple shape_of(const std::ptrdiff_t* shape, int ndim) {
    py::list lengths;
    for (int d = 0; d < ndim; ++d) lengths.append(shape[d]);
    return py::tuple(lengths);
}

}  // namespace

std::string shape_text(const std::ptrdiff_t* shape, int ndim) {
    std::string text = "(";
    for (int d = 0; d < ndim; ++d) text += std::to_string(shape[d]) + (d + 1 < ndim ? ", " : "");
    return text + (ndim == 1 ? ",)" : ")");
}

std::string dtype_text(const ArrayStruct& array) {
    constexpr std::size_t most = 80;
    const std::string text = text_of(py::str(py::handle(array.descr)));
    return text.size() <= most ? text : text.substr(0, most) + "...";
}

std::string copy_way_out(const std::string& made_by, bool is_written) {
    return is_written ? "; keep a copy in its place, made by " + made_by
                      : "; pass a copy, made by " + made_by;
}

void refuse_type(py::handle object, const std::string& path, bool is_written) {
    throw py::type_error(path + " must be a numpy.ndarray, not " + type_name(object) +
                         way_out("of_type", py::make_tuple(object, path, is_written)));
}

void refuse_dtype(const ArrayStruct& array, const std::string& path, const std::string& requirement,
                  const char* wanted, int number, bool is_written) {
    if (dtype_number(array) == number)
        throw py::type_error(path + " must be in native byte order, not " + dtype_text(array) +
                             copy_way_out(std::string(".astype('") + wanted + "')", is_written));
    throw py::type_error(path + " must have dtype " + requirement + ", not " + dtype_text(array) +
                         way_out("of_dtype", py::make_tuple(py::handle(array.descr), wanted, is_written)));
}

void refuse_param(const ArrayStruct& array, const std::string& path, bool is_written) {
    const Kernels& kernels = *isa_in_use().kernels;
    const int number = dtype_number(array);
    const DtypeKernels* wanted = nullptr;  // the first that holds its elements
    std::string names;
    for (const DtypeKernels& dtype : kernels.dtypes) {
        if (dtype.number == number) wanted = &dtype;
        names += dtype.name + std::string(", ");
    }
    for (const char* casting : {"safe", "same_kind"})
        for (const Dtype place : {Dtype::float32, Dtype::float64, Dtype::complex128})
            if (const DtypeKernels& dtype = dtype_kernels(place);
                !wanted && (casting != std::string("same_kind") || place != Dtype::float32) &&
                can_cast(array, dtype.name, casting))
                wanted = &dtype;
    if (!wanted) wanted = &dtype_kernels(Dtype::float64);
    if (number == float16_number) refuse_dtype(array, path, names, "float16", number, is_written);
    refuse_dtype(array, path, names + "float16 or bfloat16", wanted->name, wanted->number, is_written);
}

void refuse_shape(const ArrayStruct& array, const Arrays& arrays, std::size_t i, const std::string& path,
                  const std::string& model) {
    throw py::value_error(
        path + " must have the shape " + (model.empty() ? "it had in init()" : "of " + model) + ", " +
        shape_text(arrays.shape(i), arrays[i].ndim) + ", not " + shape_text(array.dimensions, array.nd) +
        way_out("of_shape", py::make_tuple(shape_of(array.dimensions, array.nd),
                                           shape_of(arrays.shape(i), arrays[i].ndim), path)));
}

void refuse_rows(const std::string& path, const char* where) {
    throw py::value_error(path + " must be an array " + where +
                          ", not Rows; add them up in an array of zeros, with numpy.add.at()");
}

void refuse_misaligned(const std::string& path, std::size_t itemsize, bool is_written) {
    throw py::value_error(path + " must be aligned in memory, not at addresses that are no multiple of " +
                          std::to_string(itemsize) + copy_way_out(".copy()", is_written));
}

void refuse_read_only(const std::string& path) {
    throw py::value_error(path + " must be writable, not read-only" + copy_way_out(".copy()", true));
}

}  // namespace fast_momentum
