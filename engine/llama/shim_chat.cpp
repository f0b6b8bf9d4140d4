//go:build llama

#include "shim.h"

#include "chat.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "jinja/value.h"
#include "json.h"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <string>
#include <vector>

// ---- chat template --------------------------------------------------------------------------------------------------

struct tdm_template {
    common_chat_template parsed;
    bool                 adds_bos;
};

// explicit_template is the source of the model's own template, or NULL.
static const char * explicit_template(const struct llama_model * model) {
    const char * text = llama_model_chat_template(model, nullptr);
    return text != nullptr ? text : llama_model_chat_template(model, "tool_use");
}

tdm_template * tdm_template_new(const struct llama_model * model, bool * none, char * err, size_t err_size) {
    const char * source = explicit_template(model);
    if ((*none = source == nullptr)) {
        snprintf(err, err_size, "the model has no chat template");
        return nullptr;
    }
    try {
        // The library below writes its messages elsewhere and throws an error without a text, so a template that
        // can't be parsed is found before.
        if (*source != 0 && strcmp(source, "chatml") != 0) common_chat_template(source, "", "");
        // The library's own set-up knows which templates need their source corrected; its result is parsed here, since
        // only the runtime below distinguishes the client's text from the template's.
        auto found = common_chat_templates_init(model, "");
        const llama_vocab * vocab = llama_model_get_vocab(model);
        const auto          text  = [&](llama_token t) { return t == LLAMA_TOKEN_NULL ? std::string() : common_token_to_piece(vocab, t, true); };
        return new tdm_template{ common_chat_template(common_chat_templates_source(found.get()), text(llama_vocab_bos(vocab)), text(llama_vocab_eos(vocab))),
                                 llama_vocab_get_add_bos(vocab) };
    } catch (const std::exception & e) {
        snprintf(err, err_size, "%s", e.what());
    } catch (...) {
        snprintf(err, err_size, "unknown exception");
    }
    return nullptr;
}

void tdm_template_free(tdm_template * t) { delete t; }

const char * tdm_template_source(const tdm_template * t) { return t->parsed.source().c_str(); }
const char * tdm_template_bos(const tdm_template * t) { return t->parsed.bos_token().c_str(); }
const char * tdm_template_eos(const tdm_template * t) { return t->parsed.eos_token().c_str(); }

static jinja::value marked(const std::string & text) {
    auto s = jinja::mk_val<jinja::value_string>(text);
    s->mark_input();
    return s;
}

static jinja::value plain(const std::string & text) { return jinja::mk_val<jinja::value_string>(text); }

static jinja::value content_value(const jinja::caps & caps, const std::string & text) {
    if (caps.supports_string_content || !caps.supports_typed_content) return marked(text);
    auto part = jinja::mk_val<jinja::value_object>();
    part->insert("type", plain("text"));
    part->insert("text", marked(text));
    auto list = jinja::mk_val<jinja::value_array>();
    list->push_back(part);
    return list;
}

// A template without a system role gets the system text in front of the next message.
static std::vector<std::pair<std::string, std::string>> fold_system(const jinja::caps & caps, const tdm_message * messages, size_t n) {
    std::vector<std::pair<std::string, std::string>> out;
    for (size_t i = 0; i < n; i++) out.emplace_back(messages[i].role, std::string(messages[i].content, messages[i].content_len));
    if (!caps.supports_system_role && out.size() > 1 && out[0].first == "system") {
        if (!out[0].second.empty()) out[1].second = out[0].second + "\n" + out[1].second;
        out.erase(out.begin());
    }
    return out;
}

static std::string today(const char * format) {
    const std::time_t now = std::time(nullptr);
    std::tm           tm;
    char              buf[32];
    localtime_r(&now, &tm);
    strftime(buf, sizeof buf, format, &tm);
    return buf;
}

static jinja::value_string render(const tdm_template * t, const tdm_message * messages, size_t n) {
    const auto & tmpl = t->parsed;
    auto         list = jinja::mk_val<jinja::value_array>();
    for (const auto & [role, text] : fold_system(tmpl.caps, messages, n)) {
        auto m = jinja::mk_val<jinja::value_object>();
        m->insert("role", plain(role));
        m->insert("content", content_value(tmpl.caps, text));
        list->push_back(m);
    }
    jinja::context ctx(tmpl.source());
    ctx.set_val("messages", list);
    ctx.set_val("bos_token", plain(tmpl.bos_token()));
    ctx.set_val("eos_token", plain(tmpl.eos_token()));
    ctx.set_val("enable_thinking", jinja::mk_val<jinja::value_bool>(true));
    ctx.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(true));
    ctx.set_val("datetime", plain(today("%b %d %Y")));
    ctx.set_val("date_string", plain(today("%d %b %Y")));
    jinja::runtime     runtime(ctx);
    const jinja::value result = runtime.execute(tmpl.prog);
    return jinja::runtime::gather_string_parts(result);
}

static bool copy_parts(const std::vector<jinja::string_part> & parts, tdm_rendered * out) {
    size_t bytes = 0;
    for (const auto & p : parts) bytes += p.val.size();
    out->parts = parts.size();
    out->ends  = (size_t *) malloc(sizeof(size_t) * (parts.size() + 1));
    out->input = (uint8_t *) malloc(parts.size() + 1);
    out->text  = (char *) malloc(bytes + 1);
    if (out->ends == nullptr || out->input == nullptr || out->text == nullptr) {
        tdm_rendered_free(out);
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < parts.size(); i++) {
        memcpy(out->text + at, parts[i].val.data(), parts[i].val.size());
        at += parts[i].val.size();
        out->ends[i]  = at;
        out->input[i] = parts[i].is_input ? 1 : 0;
    }
    return true;
}

bool tdm_template_render(const tdm_template * t, const tdm_message * messages, size_t n, tdm_rendered * out, char * err, size_t err_size) {
    memset(out, 0, sizeof *out);
    try {
        auto   rendered = render(t, messages, n);
        auto & parts    = rendered->val_str.parts;
        // The tokeniser adds the begin token itself; a template that writes it too would double it.
        const std::string & bos = t->parsed.bos_token();
        if (t->adds_bos && !bos.empty() && !parts.empty() && !parts[0].is_input && parts[0].val.compare(0, bos.size(), bos) == 0) {
            parts[0].val.erase(0, bos.size());
        }
        if (copy_parts(parts, out)) return true;
        snprintf(err, err_size, "out of memory");
    } catch (const std::exception & e) {
        snprintf(err, err_size, "%s", e.what());
    } catch (...) {
        snprintf(err, err_size, "unknown exception");
    }
    return false;
}

void tdm_rendered_free(tdm_rendered * r) {
    free(r->ends);
    free(r->input);
    free(r->text);
    memset(r, 0, sizeof *r);
}
