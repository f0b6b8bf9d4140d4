// Package grammar constrains an answer to a form: a JSON schema, a regular expression, a Lark or a GBNF grammar. It
// says, token by token, which tokens of a vocabulary may come next (a mask) and which must (forced tokens).
//
// The work is done by llguidance (MIT), an Earley parser over derivatives of regular expressions, linked as a static
// library where the build tag llama is set; no C or Rust type leaves the package. What is decided without it (limits,
// which keyword of a schema can't be obeyed, GBNF translated to Lark) is plain Go and built everywhere.
//
// The package knows nothing of sampling, of llama.cpp or of requests.
package grammar
