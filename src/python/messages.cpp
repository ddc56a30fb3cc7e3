#include "python/messages.hpp"

#include "plain/isa.hpp"

namespace fast_momentum {

namespace {

std::string type_way_out(py::handle object, bool is_written) {
    const auto is_of = [&](const py::object& type) {
        return PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(type.ptr()));
    };
    if (is_of(py::module_::import("numpy.ma").attr("MaskedArray")))
        return "; its mask would be ignored, pass its .data or .filled()";
    if (is_of(numpy_types().ndarray)) return "; pass numpy.asarray() of it, which shares its memory";
    if (numpy_types().is_scalar(object.ptr()))
        return is_written ? "; it cannot be updated in place, use a 0-d array"
                          : "; only the gradient of a 0-d array may be a scalar, and sum(keepdims=True) "
                            "gives an array";
    if (py::hasattr(object, "__dlpack__"))
        return "; pass an array that shares its memory, such as numpy.from_dlpack() gives";
    return "";
}

bool can_cast(const ArrayStruct& array, const char* wanted, const char* casting) {
    return py::module_::import("numpy")
        .attr("can_cast")(py::handle(array.descr), wanted, casting)
        .cast<bool>();
}

// What makes an array of `wanted` of it, and what that does to its elements. Nothing is advised that loses
// what they are.
std::string astype_way_out(const ArrayStruct& array, const char* wanted, bool is_written) {
    const char kind = py::detail::array_descriptor_proxy(array.descr)->kind;
    const std::string way_out = copy_way_out(std::string(".astype('") + wanted + "')", is_written);
    constexpr const char* of_ml_dtypes = "bfloat16";
    if (wanted == std::string(of_ml_dtypes)) return way_out + ", which rounds";
    if (can_cast(array, wanted, "safe")) {
        constexpr py::ssize_t exact_bytes = 4;  // in float64
        const bool is_integer = kind == 'i' || kind == 'u';
        const bool is_long = py::reinterpret_borrow<py::dtype>(array.descr).itemsize() > exact_bytes;
        return way_out + (is_integer && is_long ? ", which rounds above 2**53" : "");
    }
    if (can_cast(array, wanted, "same_kind")) return way_out + ", which rounds";
    return kind == 'c' ? "; its imaginary parts would be lost, so give init() complex params" : "";
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
                         type_way_out(object, is_written));
}

void refuse_dtype(const ArrayStruct& array, const std::string& path, const std::string& requirement,
                  const char* wanted, int number, bool is_written) {
    if (dtype_number(array) == number)
        throw py::type_error(path + " must be in native byte order, not " + dtype_text(array) +
                             copy_way_out(std::string(".astype('") + wanted + "')", is_written));
    throw py::type_error(path + " must have dtype " + requirement + ", not " + dtype_text(array) +
                         astype_way_out(array, wanted, is_written));
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
        shape_text(arrays.shape(i), arrays[i].ndim) + ", not " + shape_text(array.dimensions, array.nd));
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
