#include "python/docstrings.hpp"

#include <stdexcept>

#include "python/prefix.hpp"
#include "python/settings.hpp"

namespace fast_momentum {

namespace {

// What numpydoc has behind the name of a parameter.
std::string type_text(const Setting& setting, const Rule& rule) {
    const char* fallback = rule.fallback(setting.place);
    const std::string rest = fallback ? std::string(", default ") + fallback : "";
    switch (setting.kind) {
        case Kind::number:
            return "float, or prefix of `params`" + rest;
        case Kind::bound:
            return "float or None, or prefix of `params`" + rest;
        case Kind::choice_or_none:
            return "{None, " + quoted(choices(setting, rule)) + "}" + rest;
        case Kind::choice_or_number:
            return "{" + quoted(choices(setting, rule)) + "} or float" + rest;
        case Kind::flag:
            return "bool" + rest;
        case Kind::choice:
            return "{" + quoted(choices(setting, rule)) + "}" + rest;
        case Kind::dtype:
            return "{None, " + quoted(dtype_names()) + "}, or such a NumPy dtype" + rest;
        case Kind::option:
            break;
    }
    return "float, optional";
}

std::string indented(const std::string& text) {
    std::string lines = "    ";
    for (const char c : text) lines += c == '\n' ? std::string("\n    ") : std::string(1, c);
    return lines + "\n";
}

}  // namespace

std::string signature_of(const Rule& rule) {
    std::string text = std::string(rule.made_by) + "(params, *";
    for (const Setting& setting : all_settings) {
        if (!is_keyword(rule, setting.place)) continue;
        const char* fallback = rule.fallback(setting.place);
        text += std::string(", ") + setting.name + (fallback ? std::string("=") + fallback : "");
    }
    return text + ")";
}

std::string attribute_doc(const Setting& setting) {
    for (const Rule& rule : all_rules())
        if (is_keyword(rule, setting.place)) return type_text(setting, rule) + "\n\n" + setting.doc;
    throw std::logic_error(std::string("rules.cpp must have a rule that takes ") + setting.name);
}

std::string maker_doc(const Rule& rule) {
    for (const MakerDoc& doc : maker_docs) {
        if (doc.made_by != std::string(rule.made_by)) continue;
        std::string text = signature_of(rule) + "\n--\n\n" + doc.formula + before_parameters_doc;
        for (const Setting& setting : all_settings)
            if (is_keyword(rule, setting.place))
                text += std::string(setting.name) + " : " + type_text(setting, rule) + "\n" +
                        indented(setting.doc);
        std::string fixed;
        for (const Setting& setting : all_settings)
            if (setting.fixed && is_keyword(rule, setting.place))
                fixed += (fixed.empty() ? "`" : ", `") + std::string(setting.name) + "`";
        text += after_parameters_doc + fixed + after_returns_doc;
        if (rule.has_second_moment()) text += second_moment_doc;
        return text + doc.references_and_example;
    }
    throw std::logic_error(std::string("docstrings.hpp must have a docstring for ") + rule.made_by);
}

}  // namespace fast_momentum
