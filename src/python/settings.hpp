// The settings of one State: what its keywords are, as the user gives them -> checked values.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <utility>
#include <vector>

#include "plain/rules.hpp"
#include "python/arrays.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// As the function that makes a State, or a checkpoint, hands them over; null where the rule has no such
// keyword.
using Given = std::array<py::object, Setting::n>;

// What holds where a keyword is not given.
py::object fallback(const Rule& rule, Setting::Name name);

// The names that Kind::dtype has: float32, and the rows of Kernels::storages.
std::vector<const char*> dtype_names();

// That form of the rule.
const Rule& checked_form(const Rule& rule, py::handle form);

// One number for all arrays, which each dtype that they are worked on in must hold.
double checked_for_all(const char* name, const Range& range, py::handle value, const Params& params);

// One of them, checked for itself; how they go together is for State to say.
struct Item {
    py::object shown;  // as it is read back
    double common = 0;
    bool per_array = false;
    std::vector<double> numbers;  // of each array, then
};

Item checked_item(const Rule& rule, Setting::Name name, py::handle value, const Params& params);

class Settings {
  public:
    // `rule` is any form of it.
    Settings(const Rule& rule, const Given& given, const Params& params);

    // `item` becomes what was there, which may be shown elsewhere.
    void exchange(Setting::Name name, Item& item) noexcept {
        std::swap(items_[name], item);
        common_[name] = items_[name].common;
    }

    template <class Visit>
    void each_object(const Visit& visit) {
        for (Item& item : items_) visit(item.shown);
    }

    const Rule& rule() const { return *rule_; }
    // As it is read back.
    const py::object& shown(Setting::Name name) const { return items_[name].shown; }
    bool is_fallback(Setting::Name name) const { return shown(name).equal(fallback(*rule_, name)); }

    bool per_array(Setting::Name name) const { return items_[name].per_array; }
    bool any_per_array() const;
    double of(Setting::Name name, std::size_t leaf) const {
        return per_array(name) ? items_[name].numbers[leaf] : common_[name];
    }
    bool any_number(Setting::Name name) const;  // that is not None
    bool any_nonzero(Setting::Name name) const;
    bool all_zero(Setting::Name name) const;

    // Of all arrays, but for what is there per array; and of one.
    const Values& common() const { return common_; }
    Values values(std::size_t leaf) const;

  private:
    const Rule* rule_;
    std::array<Item, Setting::n> items_;
    Values common_{};
};

}  // namespace fast_momentum
