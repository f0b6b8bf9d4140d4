//go:build llama

// What a chat template says about answers: the form of tool calls and reasoning, as a grammar and a parser. The work is
// the library's; here its parts are put together without rendering more than once.

#include "shim_answer.h"

#include "chat-auto-parser.h"
#include "chat.h"
#include "json-schema.h"
#include "json.h"
#include "log.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

using json = common_json;

// A template of our own for models whose template has no form for tools. Only its form of answers is used: Go writes
// tools, calls and results into the texts of the messages in this form.
#define TDM_CALLS_ONLY                                                                                                \
    "{%- if message.tool_calls -%}{%- for call in message.tool_calls -%}"                                             \
    "{{- '\\n<tool_call>\\n{\"name\": \"' + call.function.name + '\", \"arguments\": ' + (call.function.arguments | " \
    "tojson) + '}\\n</tool_call>' -}}"                                                                                \
    "{%- endfor -%}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"                                                \
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
#define TDM_OWN_HEAD                                                                                                  \
    "{%- if tools -%}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' -}}{%- endif -%}"               \
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
#define TDM_OWN_THINK                                                                                                 \
    "{%- if message.reasoning_content -%}"                                                                            \
    "{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' -}}{%- endif -%}"
static const char * const own_form       = TDM_OWN_HEAD "{{- message.content or '' -}}" TDM_CALLS_ONLY;
static const char * const own_form_think = TDM_OWN_HEAD TDM_OWN_THINK "{{- message.content or '' -}}" TDM_CALLS_ONLY;

namespace {

json hello() { return json::array({ json{ { "role", "user" }, { "content", "Hello" } } }); }

// One template and what the library finds out about it.
struct variant {
    common_chat_template   parsed;
    bool                   specialised = false; // the library has code for this template alone
    autoparser::autoparser analysis;            // of every other one

    variant(const std::string & src, const std::string & bos, const std::string & eos) : parsed(src, bos, eos) {
        autoparser::generation_params probe;
        probe.messages              = hello();
        probe.add_generation_prompt = true;
        probe.extra_context         = json::object();
        try {
            specialised = common_chat_try_specialized_template(parsed, parsed.source(), probe).has_value();
        } catch (const std::exception &) {
            specialised = true; // it is one, and can't render the probe
        }
        if (!specialised) analysis.analyze_template(parsed);
    }

    common_chat_params generate(autoparser::generation_params params) const {
        if (specialised) {
            auto found = common_chat_try_specialized_template(parsed, parsed.source(), params);
            if (found) return *found;
            throw std::runtime_error("the form of this chat template can't be found");
        }
        auto out              = autoparser::peg_generator::generate_parser(parsed, params, analysis);
        out.supports_thinking = analysis.reasoning.mode != autoparser::reasoning_mode::NONE;
        if (out.supports_thinking) {
            out.thinking_start_tag = analysis.reasoning.start;
            out.thinking_end_tags  = { analysis.reasoning.end };
        }
        return out;
    }
};

std::vector<std::string> call_rules(const std::string & parser) {
    std::vector<std::string> names;
    if (parser.empty()) return names;
    const json blob = json::parse(parser);
    for (const auto & p : blob.at("parsers")) {
        if (p.at("type") == "rule" && p.at("trigger").get<bool>()) names.push_back(p.at("name").get<std::string>());
    }
    return names;
}

json today() {
    const auto format = [](const char * f) {
        const std::time_t now = std::time(nullptr);
        std::tm           tm;
        char              buf[32];
        localtime_r(&now, &tm);
        strftime(buf, sizeof buf, f, &tm);
        return std::string(buf);
    };
    return json{ { "datetime", format("%b %d %Y") }, { "date_string", format("%d %b %Y") } };
}

// The library hides how it prepares messages for a template; this does the same.
json messages_for(const common_chat_template & tmpl, std::vector<common_chat_msg> messages) {
    if (tmpl.source().find("You have access to the following functions in JSONSchema format") != std::string::npos) {
        const auto trim = [](const std::string & s) {
            const auto from = s.find_first_not_of(" \t\n\r\f\v");
            return from == std::string::npos ? std::string() : s.substr(from, s.find_last_not_of(" \t\n\r\f\v") - from + 1);
        };
        for (auto & m : messages) {
            m.content           = trim(m.content);
            m.reasoning_content = trim(m.reasoning_content);
        }
    }
    const auto & caps = tmpl.caps;
    if (!caps.supports_system_role && !messages.empty() && messages[0].role == "system") {
        if (messages.size() > 1 && !messages[0].content.empty()) {
            messages[1].content = messages[0].content + "\n" + messages[1].content;
        }
        messages.erase(messages.begin());
    }
    json list = common_chat_msgs_to_json_oaicompat(messages, false);
    if (caps.supports_object_arguments) {
        for (auto & m : list) {
            if (!m.contains("tool_calls")) continue;
            for (auto & call : m["tool_calls"]) {
                auto & args = call["function"]["arguments"];
                if (args.is_string()) args = json::parse(args.get<std::string>());
                // Arguments that were cut off come as a text, and templates take them apart.
                if (!args.is_object()) args = json{ { "arguments", args.is_string() ? args : json::make(args.dump()) } };
            }
        }
    }
    if (!caps.supports_string_content && caps.supports_typed_content) {
        for (auto & m : list) {
            const std::string text = m["content"].get<std::string>();
            m["content"]           = json::array({ json{ { "type", "text" }, { "text", text } } });
        }
    }
    return list;
}

std::vector<common_chat_tool> without(const std::vector<common_chat_tool> & tools, const std::string & only) {
    std::vector<common_chat_tool> out;
    for (const auto & t : tools) {
        if (only.empty() || t.name == only) out.push_back(t);
    }
    return out;
}

// The schemas of a tool's arguments are followed by another library, which obeys more of them. So the converter to GBNF
// gets a constant in place of each, whose literal Go replaces.
struct argument_mark {
    std::string tool;
    std::string property; // empty: all arguments, as one object
    std::string literal;
    std::vector<std::string> texts; // not empty: the argument is one of these texts, not JSON
};

// Most bytes of the texts of one argument.
constexpr size_t texts_max = 16 << 10;

// Whether a text is what it is between tags of any form.
bool stays_between_tags(const std::string & s) {
    if (s.empty() || s.front() == ' ' || s.back() == ' ') return false;
    return std::all_of(s.begin(), s.end(), [](unsigned char c) { return c >= 0x80 || isalnum(c) || strchr(" _-./:+,@%", c) != nullptr; });
}

// The texts that a schema lists, or none where it allows anything else or one of them could end its tag.
std::vector<std::string> listed_texts(const json & schema) {
    std::vector<std::string> texts;
    if (!schema.is_object() || (schema.contains("type") && schema.at("type") != "string")) return texts;
    for (const char * combined : { "$ref", "anyOf", "oneOf", "allOf", "not" }) {
        if (schema.contains(combined)) return texts;
    }
    const bool constant = schema.contains("const");
    if (!constant && !schema.contains("enum")) return texts;
    json   values = constant ? json::array() : schema.at("enum");
    size_t bytes  = 0;
    if (constant) values.push_back(schema.at("const"));
    if (!values.is_array()) return texts;
    for (const auto & v : values) {
        if (!v.is_string() || !stays_between_tags(v.get<std::string>())) return {};
        texts.push_back(v.get<std::string>());
        bytes += texts.back().size();
    }
    return bytes <= texts_max ? texts : std::vector<std::string>();
}

struct argument_marker {
    std::string                name; // occurs nowhere in the tools
    std::vector<argument_mark> marks;

    // The type stays for templates that write it.
    json marked(json schema, const std::string & tool, const std::string & property) {
        for (const char * combined : { "$ref", "anyOf", "oneOf" }) {
            if (schema.contains(combined)) schema.erase(combined);
        }
        if (schema.contains("type") && schema.at("type").is_array()) schema["type"] = "object";
        const json constant{ { name, (int) marks.size() } };
        marks.push_back({ tool, property, constant.dump(), {} });
        schema["const"] = constant;
        return schema;
    }

    // schemas are the names of the schemas that an answer's parser has, and after "rule " of its rules: of all
    // arguments, or of some that have tags around them. One that may be a string is text between tags, not JSON; it is
    // marked where the schema lists the texts and its tags are like those of the others.
    json mark(const std::string & tool, const json & parameters, const std::set<std::string> & schemas) {
        if (schemas.count("tool-" + tool + "-schema") > 0) return marked(parameters, tool, "");
        const auto   document = common_chat_schema_from_json(parameters);
        const auto * object   = dynamic_cast<const common_chat_schema_object *>(document.root.get());
        if (object == nullptr) return parameters;
        json out = parameters;
        for (const auto & p : object->properties) {
            const bool tagged = schemas.count("tool-" + tool + "-arg-" + p.name + "-schema") + schemas.count("ling3-arg-" + tool + "-" + p.name + "-schema") > 0;
            json &     property = out.at("properties").at(p.name);
            if (p.schema->may_be_string()) {
                auto texts = listed_texts(property);
                if (texts.empty() || schemas.count("rule tool-" + tool + "-arg-" + p.name) == 0) continue;
                property           = marked(property, tool, p.name);
                marks.back().texts = std::move(texts);
            } else if (tagged) {
                property = marked(property, tool, p.name);
            }
        }
        return out;
    }

    // Texts end where their tag begins: no blank of JSON may follow.
    std::string without_blanks(std::string grammar) const {
        const std::string blank = " space";
        for (size_t i = 0; i < marks.size(); i++) {
            const std::string end = name + "\\\":" + std::to_string(i) + "}\"";
            const size_t      at  = grammar.find(end);
            if (marks[i].texts.empty() || at == std::string::npos) continue;
            if (grammar.compare(at + end.size(), blank.size(), blank) == 0) grammar.erase(at + end.size(), blank.size());
        }
        return grammar;
    }

    // Whether a grammar has every mark.
    bool all_in(const std::string & grammar) const {
        for (size_t i = 0; i < marks.size(); i++) {
            if (grammar.find(name + "\\\":" + std::to_string(i) + "}") == std::string::npos) return false;
        }
        return true;
    }
};

// bind: the names of the tools whose arguments are marked.
std::vector<common_chat_tool> marked_tools(std::vector<common_chat_tool> tools, const json & bind, const std::set<std::string> & schemas, argument_marker & marker) {
    std::set<std::string> names;
    for (const auto & name : bind) names.insert(name.get<std::string>());
    for (auto & t : tools) {
        if (names.count(t.name) == 0) continue;
        const json parameters = json::parse(t.parameters);
        if (parameters.is_object() && !parameters.empty()) t.parameters = marker.mark(t.name, parameters, schemas).dump();
    }
    return tools;
}

std::set<std::string> schema_names(const std::string & parser) {
    std::set<std::string> names;
    if (parser.empty()) return names;
    const json blob = json::parse(parser);
    for (const auto & p : blob.at("parsers")) {
        const auto type = p.at("type").get<std::string>();
        if (type == "schema") names.insert(p.at("name").get<std::string>());
        if (type == "rule") names.insert("rule " + p.at("name").get<std::string>());
    }
    return names;
}

json strings(const std::vector<std::string> & list) {
    json out = json::array();
    for (const auto & s : list) out.push_back(json::make(s));
    return out;
}

char * copy(const std::string & s, size_t * size) {
    char * out = (char *) malloc(s.size() + 1);
    if (out == nullptr) return nullptr;
    memcpy(out, s.data(), s.size());
    out[s.size()] = 0;
    *size         = s.size();
    return out;
}

template <typename F> auto guarded(char * err, size_t err_size, F && f) -> decltype(f()) {
    try {
        return f();
    } catch (const std::exception & e) {
        snprintf(err, err_size, "%s", e.what());
    } catch (...) {
        snprintf(err, err_size, "unknown exception");
    }
    return {};
}

} // namespace

struct tdm_form {
    std::unique_ptr<variant> plain;
    std::unique_ptr<variant> tool_use; // NULL: the same as plain
    std::unique_ptr<variant> own;      // for tools that the templates have no form for; NULL: they have one
    bool                     adds_bos = false, adds_eos = false;
    bool                     reasoning = false;

    const variant & for_tools() const { return tool_use ? *tool_use : *plain; }
};

// Whether the template shows tools to the model and has a form for calls.
static bool has_tool_form(const variant & v) {
    autoparser::generation_params probe;
    probe.messages      = hello();
    probe.tools         = common_chat_tools_to_json_oaicompat({ { "f", "does f", R"({"type":"object","properties":{"x":{"type":"string"}}})" } });
    probe.tool_choice   = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    probe.extra_context = today();
    probe.add_generation_prompt = true;
    try {
        const auto out = v.generate(probe);
        return !out.grammar.empty() && !call_rules(out.parser).empty() && v.parsed.caps.supports_tools;
    } catch (const std::exception &) {
        return false;
    }
}

static bool has_reasoning_form(const variant & v) {
    autoparser::generation_params probe;
    probe.messages              = hello();
    probe.extra_context         = today();
    probe.add_generation_prompt = true;
    try {
        return v.generate(probe).supports_thinking;
    } catch (const std::exception &) {
        return false;
    }
}

tdm_form * tdm_form_new(const char * source, const char * tool_source, const char * bos, const char * eos, bool adds_bos, bool adds_eos, char * err, size_t err_size) {
    return guarded(err, err_size, [&]() -> tdm_form * {
        common_log_set_verbosity_thold(-1); // it writes answers and templates to the standard error otherwise
        auto form       = std::make_unique<tdm_form>();
        form->adds_bos  = adds_bos;
        form->adds_eos  = adds_eos;
        form->plain     = std::make_unique<variant>(source, bos, eos);
        if (tool_source != nullptr) form->tool_use = std::make_unique<variant>(tool_source, bos, eos);
        form->reasoning = has_reasoning_form(*form->plain);
        if (!has_tool_form(form->for_tools())) {
            const bool think = form->plain->parsed.source().find("<think>") != std::string::npos;
            form->own        = std::make_unique<variant>(think && form->reasoning ? own_form_think : own_form, "", "");
        }
        return form.release();
    });
}

void tdm_form_free(tdm_form * f) { delete f; }
bool tdm_form_tools(const tdm_form * f) { return f->own == nullptr; }
bool tdm_form_reasoning(const tdm_form * f) { return f->reasoning; }

// The request: messages, tools, choice (auto, none, required), only (name of a tool or empty), parallel, options; with
// own the messages already hold tools and calls as texts. The result: see Go.
char * tdm_form_prepare(const tdm_form * f, const char * request, size_t len, size_t * size, char * err, size_t err_size) {
    return guarded(err, err_size, [&]() -> char * {
        const json in         = json::parse(std::string(request, len));
        const auto tools      = common_chat_tools_parse_oaicompat(in.at("tools"));
        const bool none       = in.at("choice") == "none";
        const bool own        = f->own != nullptr && !tools.empty();
        const auto & renderer = tools.empty() || own ? *f->plain : f->for_tools();
        const auto & former   = own ? *f->own : renderer;

        autoparser::generation_params params;
        params.messages              = messages_for(renderer.parsed, common_chat_msgs_parse_oaicompat(in.at("messages")));
        params.reasoning_format      = COMMON_REASONING_FORMAT_DEEPSEEK;
        params.add_generation_prompt = !in.at("continues").get<bool>();
        params.add_bos               = f->adds_bos;
        params.add_eos               = f->adds_eos;
        params.parallel_tool_calls   = in.at("parallel").get<bool>();
        params.tool_choice           = none ? COMMON_CHAT_TOOL_CHOICE_NONE : COMMON_CHAT_TOOL_CHOICE_AUTO;
        params.extra_context         = today();
        for (const auto & [name, value] : in.at("options").items()) {
            params.extra_context[name] = value;
            if (name == "enable_thinking" && value.is_boolean()) params.enable_thinking = value.get<bool>();
        }
        if (!own) params.tools = common_chat_tools_to_json_oaicompat(tools);
        common_chat_params shape = renderer.generate(params);
        json               out{ { "prompt", shape.prompt } };
        if (in.at("prompt_only").get<bool>()) return copy(out.dump(), size);

        std::string parser_prompt = shape.generation_prompt;
        if (own) {
            // The answer is parsed in the form of the other template, whose beginning stands in for this one's.
            auto own_params     = params;
            own_params.messages = hello();
            own_params.tools    = common_chat_tools_to_json_oaicompat(tools);
            auto own_shape      = former.generate(own_params);
            own_shape.additional_stops = shape.additional_stops;
            parser_prompt       = own_shape.generation_prompt;
            const auto thinks   = shape.generation_prompt.find("<think>");
            if (own_shape.supports_thinking && thinks != std::string::npos) parser_prompt += shape.generation_prompt.substr(thinks);
            shape = own_shape;
        }
        out["generation_prompt"] = parser_prompt;
        out["format"]            = (int) shape.format;
        out["parser"]            = shape.parser;
        out["preserved"]         = strings(shape.preserved_tokens);
        out["stops"]             = strings(shape.additional_stops);
        out["thinks"]            = shape.supports_thinking;
        out["think_start"]       = shape.thinking_start_tag;
        out["think_ends"]        = strings(shape.thinking_end_tags);
        out["triggers"]          = json::array();
        for (const auto & t : shape.grammar_triggers) {
            out["triggers"].push_back(json{ { "type", (int) t.type }, { "value", t.value }, { "token", t.token } });
        }
        if (in.at("want_grammar").get<bool>()) {
            auto forced        = params;
            forced.tool_choice = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
            const auto generate = [&](const std::vector<common_chat_tool> & list) {
                forced.tools    = common_chat_tools_to_json_oaicompat(list);
                forced.messages = hello(); // the form of calls doesn't depend on them, and these are rendered sooner
                try {
                    return former.generate(forced);
                } catch (const std::exception &) { // a template may refuse them
                    forced.messages = params.messages;
                    return former.generate(forced);
                }
            };
            const auto callable = without(tools, in.at("only").get<std::string>());
            argument_marker marker{ in.at("mark").get<std::string>(), {} };
            auto call = generate(marked_tools(callable, in.at("bind"), schema_names(shape.parser), marker));
            if (!marker.all_in(call.grammar)) {
                marker.marks.clear();
                call = generate(callable);
            }
            out["grammar"]    = marker.without_blanks(call.grammar);
            out["call_rules"] = strings(call_rules(call.parser));
            out["marks"]      = json::array();
            for (const auto & m : marker.marks) {
                out["marks"].push_back(json{ { "tool", m.tool }, { "property", m.property }, { "literal", m.literal }, { "texts", strings(m.texts) } });
            }
        }
        return copy(out.dump(), size);
    });
}

struct tdm_parser {
    common_chat_parser_params params;
};

tdm_parser * tdm_parser_new(const char * blob, size_t len, const char * generation_prompt, size_t prompt_len, int32_t format, char * err, size_t err_size) {
    return guarded(err, err_size, [&]() -> tdm_parser * {
        common_log_set_verbosity_thold(-1);
        if (format < 0 || format >= COMMON_CHAT_FORMAT_COUNT) throw std::runtime_error("unknown format of answers");
        auto p                      = std::make_unique<tdm_parser>();
        p->params.format            = (common_chat_format) format;
        p->params.reasoning_format  = COMMON_REASONING_FORMAT_DEEPSEEK;
        p->params.generation_prompt = std::string(generation_prompt, prompt_len);
        p->params.parser.load(std::string(blob, len));
        return p.release();
    });
}

void tdm_parser_free(tdm_parser * p) { delete p; }

static void append(std::string & out, uint8_t kind, const std::string & text) {
    const uint32_t n = text.size();
    out.push_back((char) kind);
    out.append((const char *) &n, sizeof n);
    out += text;
}

// The whole of what is found in a text: records of kind (1 content, 2 reasoning, 3 id, 4 name, 5 arguments), length and
// text; a call is three records. NULL: it can't be parsed.
char * tdm_parser_parse(tdm_parser * p, const char * text, size_t len, bool partial, size_t * size, char * err, size_t err_size) {
    return guarded(err, err_size, [&]() -> char * {
        const auto  msg = common_chat_parse(std::string(text, len), partial, p->params);
        std::string out;
        append(out, 2, msg.reasoning_content);
        append(out, 1, msg.content);
        for (const auto & call : msg.tool_calls) {
            append(out, 3, call.id);
            append(out, 4, call.name);
            append(out, 5, call.arguments);
        }
        return copy(out, size);
    });
}
