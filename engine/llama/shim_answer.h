//go:build llama

// The form of a chat template's answers, and the parser of one answer. Every exception is caught.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tdm_form tdm_form;
// tool_source: the template for requests with tools, or NULL
tdm_form * tdm_form_new(const char * source, const char * tool_source, const char * bos, const char * eos, bool adds_bos, bool adds_eos, char * err, size_t err_size);
void       tdm_form_free(tdm_form * f);
bool       tdm_form_tools(const tdm_form * f);     // the template has a form for tools of its own
bool       tdm_form_reasoning(const tdm_form * f); // the same for reasoning
// Both JSON; the result is freed with free. NULL: see err.
char * tdm_form_prepare(const tdm_form * f, const char * request, size_t len, size_t * size, char * err, size_t err_size);

typedef struct tdm_parser tdm_parser;
tdm_parser * tdm_parser_new(const char * blob, size_t len, const char * generation_prompt, size_t prompt_len, int32_t format, char * err, size_t err_size);
void         tdm_parser_free(tdm_parser * p);
char *       tdm_parser_parse(tdm_parser * p, const char * text, size_t len, bool partial, size_t * size, char * err, size_t err_size);

#ifdef __cplusplus
}
#endif
