#include "python/disjoint.hpp"

#include <vector>

#include "python/messages.hpp"
#include "python/rows.hpp"

namespace fast_momentum {

Region region_of(PyObject* object, const DtypeKernels& dtype, bool written) {
    const ArrayStruct& array = array_struct(object);
    const Found found = {&dtype, has_dtype(array, dtype) ? Stored::native : narrow_storage(array)};
    return {array.data, found.itemsize() * dtype.reals, array.nd, array.dimensions, array.strides, written};
}

void check_own_elements(const Region& elements, const std::string& path) {
    const Verdict verdict = self_overlap(elements);
    if (verdict == Verdict::disjoint) return;
    throw py::value_error(
        path + " must have elements that share no memory, not " +
        (verdict == Verdict::overlapping ? "overlapping ones" : "strides of which that cannot be proved") +
        copy_way_out(".copy()", true));
}

void check_disjoint(const Kept& kept, const Leaves& params, const Leaves& partners, Role role,
                    const Written& written) {
    struct Name {
        const char* container;
        std::size_t i;
        const char* part;  // of what lies there
    };
    std::vector<Region> regions;
    std::vector<Name> names;
    const auto add = [&](const char* container, std::size_t i, const Region& region, const char* part = "") {
        regions.push_back(region);
        names.push_back({container, i, part});
    };
    for (std::size_t i = 0; i < kept.size(); ++i) {
        const DtypeKernels& dtype = kept.model().dtype(i);
        add(name_of(Role::params), i, region_of(params[i], dtype, written.params));
        if (partners.size() > 0 && numpy_types().is_array(partners[i]))
            add(name_of(role), i, region_of(partners[i], dtype, written.partners));
        if (partners.size() > 0 && is_rows(partners[i]))
            add(name_of(role), i, region_of(rows_of(partners[i]).values, dtype, written.partners),
                part_of(Role::values));
        for (const Slot& slot : all_slots)
            if (kept.has(slot.place, i))
                add(slot.name, i, kept.slots[slot.place]->region(i, written.slot(slot.place)));
    }
    const Clash clash = find_clash(regions);
    if (clash.verdict == Verdict::disjoint) return;
    const Name &first = names[clash.first], &second = names[clash.second];
    const auto is_grad = [&](const Name& name) { return name.container == name_of(Role::grads); };
    const std::string way_out = is_grad(first) || is_grad(second) ? "; pass a copy of the gradient"
                                : role == Role::out               ? "; pass other arrays as out"
                                                                  : "; give each array once";
    const std::string first_name = first.container + kept.params.tree.path(first.i) + first.part;
    const std::string second_name = second.container + kept.params.tree.path(second.i) + second.part;
    const std::string requirement = second_name + " must share no memory with " + first_name;
    if (clash.verdict == Verdict::unknown)
        throw py::value_error("cannot prove that " + first_name + " and " + second_name +
                              " are disjoint: " + requirement + ", not have such strides" + way_out);
    const bool same = regions[clash.first].data == regions[clash.second].data;
    throw py::value_error(requirement + ", not " + (same ? "begin at the same element" : "overlap it") +
                          way_out);
}

}  // namespace fast_momentum
