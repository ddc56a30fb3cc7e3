#include "python/settings.hpp"

#include <pybind11/eval.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "plain/isa.hpp"
#include "plain/limits.hpp"
#include "python/prefix.hpp"

namespace fast_momentum {

namespace {

// None of them needs the package that has a bfloat16.
std::string dtype_name(py::handle value) {
    if (py::isinstance<py::str>(value)) return text_of(value);
    try {
        return text_of(py::module_::import("numpy").attr("dtype")(value).attr("name"));
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
        return "";
    }
}

// A way to store float32, and its name as it reads back.
std::pair<Stored, const char*> checked_dtype(const char* setting, py::handle value, const Params& params) {
    if (value.is_none()) return {Stored::native, nullptr};
    const std::vector<const char*> names = dtype_names();
    const auto found = std::find(names.begin(), names.end(), dtype_name(value));
    if (found == names.end())
        throw py::value_error(std::string(setting) + " must be None or one of " + quoted(names) + ", not " +
                              brief(value));
    for (std::size_t i = 0; i < params.dtypes.size(); ++i)
        if (const DtypeKernels& dtype = dtype_kernels(params.dtypes[i]); dtype.itemsize != sizeof(float))
            throw py::value_error(std::string(setting) + " must be None where an array is " + dtype.name +
                                  ", as params" + params.tree.path(i) + " is, not '" + *found + "'; use " +
                                  (dtype.reals > 1 ? "complex64" : "float32") + " arrays");
    return {found == names.begin() ? Stored::native : Stored(found - names.begin() - 1), *found};
}

}  // namespace

std::vector<const char*> dtype_names() {
    const Kernels& kernels = *isa_in_use().kernels;
    std::vector<const char*> names = {dtype_kernels(Dtype::float32).name};
    for (const Storage& storage : kernels.storages) names.push_back(storage.name);
    return names;
}

py::object fallback(const Rule& rule, Setting::Name name) {
    // Never deleted: there may be no interpreter by then.
    static const auto* all = [] {
        auto* made = new std::vector<Given>(all_rules().size());
        for (std::size_t row = 0; row < made->size(); ++row)
            for (const Setting& setting : all_settings)
                if (const char* text = all_rules()[row].fallback(setting.place))
                    (*made)[row][setting.place] = py::eval(text, py::dict());
        return made;
    }();
    return (*all)[static_cast<std::size_t>(&rule - all_rules().data())][name];
}

const Rule& checked_form(const Rule& rule, py::handle form) {
    const Setting& setting = all_settings[Setting::form];
    const std::vector<const char*> forms = choices(setting, rule);
    return *find_rule(rule.name, forms[checked_name(setting.name, form, forms)]);
}

double checked_for_all(const char* name, const Range& range, py::handle value, const Params& params) {
    const std::vector<Dtype>& dtypes = params.dtypes;
    const double number = checked_real(value, Path::of(name));
    if (!range.contains(number))
        throw py::value_error(std::string(name) + " must " + range.requirement + ", not " +
                              repr_of(py::float_(number)));
    for (std::size_t i = 0; range.is_rounded && i < dtypes.size(); ++i) {
        if (i > 0 && dtypes[i] == dtypes[i - 1]) continue;
        const DtypeKernels& dtype = dtype_kernels(dtypes[i]);
        if (const char* requirement = missed_rounding(range, number, dtype))
            throw py::value_error(std::string(name) + " must " + requirement + " when rounded to " +
                                  dtype.name + ", in which params" + params.tree.path(i) +
                                  " is worked on, not be " + repr_of(py::float_(number)) +
                                  "; use a float64 array or another value");
    }
    return number;
}

namespace {

void check_order(const Setting& setting, const Item& item, const Params& params) {
    if (!compares_elements(setting.place)) return;
    const bool may_be_none = setting.kind != Kind::number;
    for (std::size_t i = 0; i < params.dtypes.size(); ++i) {
        const DtypeKernels& dtype = dtype_kernels(params.dtypes[i]);
        const double x = item.per_array ? item.numbers[i] : item.common;
        if (dtype.reals > 1 && (may_be_none ? x == x : x != 0))
            throw py::value_error(std::string(setting.name) + " must be " + (may_be_none ? "None" : "0") +
                                  " where an array is " + dtype.name + ", as params" + params.tree.path(i) +
                                  " is, not " + repr_of(py::float_(x)) + "; complex numbers have no order" +
                                  (setting.place == Setting::clip_value ? ", use clip_norm" : ""));
    }
}

}  // namespace

Item checked_item(const Rule& rule, Setting::Name name, py::handle value, const Params& params) {
    const Setting& setting = all_settings[name];
    Item item;
    const bool is_fixed_by_form =
        setting.kind != Kind::number && !rule.takes_setting(name) && name != Setting::form;
    if (is_fixed_by_form && !value.equal(fallback(rule, name)))
        refuse_in_form(setting, rule, setting.name, "be " + repr_of(fallback(rule, name)), brief(value));
    switch (setting.kind) {
        case Kind::number:
        case Kind::bound: {
            std::vector<double> numbers;
            item.shown = read_prefix(setting, rule, value, params, numbers);
            const bool is_number = py::isinstance<py::float_>(item.shown);
            item.per_array = !is_number && !item.shown.is_none();
            item.common = is_number ? item.shown.cast<double>() : none;
            if (item.per_array) item.numbers = std::move(numbers);
            break;
        }
        case Kind::flag:
            item.common = checked_flag(setting.name, value);
            item.shown = py::bool_(item.common != 0);
            break;
        case Kind::option:
            item.common =
                value.is_none() ? none : checked_for_all(setting.name, setting.range, value, params);
            item.shown = value.is_none() ? py::object(py::none()) : py::float_(item.common);
            break;
        case Kind::choice_or_none:
            item.common = none;
            item.shown = py::none();
            if (value.is_none()) break;
            [[fallthrough]];
        case Kind::choice:
            item.common = checked_name(setting.name, value, choices(setting, rule));
            item.shown = py::str(choices(setting, rule)[static_cast<std::size_t>(item.common)]);
            break;
        case Kind::choice_or_number:
            if (py::isinstance<py::str>(value)) {
                const unsigned place = checked_name(setting.name, value, choices(setting, rule));
                item.common = -1 - static_cast<double>(place);
                item.shown = py::str(choices(setting, rule)[place]);
            } else {
                item.common = checked_for_all(setting.name, setting.range, value, params);
                item.shown = py::float_(item.common);
            }
            break;
        case Kind::dtype: {
            const auto [stored, found] = checked_dtype(setting.name, value, params);
            if (stored != Stored::native && !storage_of(stored)->dither && rule.has_second_moment())
                throw py::value_error(
                    std::string(setting.name) +
                    " must be None, 'float32', 'float16' or 'bfloat16' in the rule " + rule.name + ", not " +
                    brief(value) +
                    "; in int8, small second moments would become 0, which steps are divided by");
            item.common = static_cast<double>(stored);
            item.shown = py::cast(found);
            break;
        }
    }
    check_order(setting, item, params);
    return item;
}

Settings::Settings(const Rule& rule, const Given& given, const Params& params) : rule_(&rule) {
    if (rule.form) rule_ = &checked_form(rule, given[Setting::form]);  // which says what others may be
    items_[Setting::form].shown = py::none();
    for (const Setting& setting : all_settings) {
        if (!is_keyword(rule, setting.place)) continue;
        Item item = checked_item(*rule_, setting.place, given[setting.place], params);
        exchange(setting.place, item);
    }
}

bool Settings::any_per_array() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& item) { return item.per_array; });
}

bool Settings::any_number(Setting::Name name) const {
    if (!per_array(name)) return common_.has(name);
    const auto& numbers = items_[name].numbers;
    return std::any_of(numbers.begin(), numbers.end(), [](double x) { return x == x; });
}

bool Settings::any_nonzero(Setting::Name name) const {
    if (!per_array(name)) return common_[name] != 0;
    const auto& numbers = items_[name].numbers;
    return std::any_of(numbers.begin(), numbers.end(), [](double x) { return x != 0; });
}

bool Settings::all_zero(Setting::Name name) const {
    return !any_nonzero(name) && !(per_array(name) && items_[name].numbers.empty());
}

Values Settings::values(std::size_t leaf) const {
    Values values = common_;
    for (unsigned name = 0; name < Setting::n; ++name)
        if (per_array(Setting::Name(name))) values.of[name] = items_[name].numbers[leaf];
    return values;
}

}  // namespace fast_momentum
