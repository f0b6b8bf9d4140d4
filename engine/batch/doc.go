// Package batch computes many answers at once on one device (continuous batching): sequences join and leave the shared
// batch at every step.
//
//	Submit ─▶ inbox ─▶ waiting ─▶ slot: prompt chunks ─▶ one token a step ─▶ Summary, Release
//	                      ▲          │
//	                      └──────────┘ preempted: cells taken away, tokens kept
//
// An Executor is one goroutine on one OS thread; it alone calls Step, Truncate and CopyPrefix of the runners given to
// Attach, and the functions given to Do and TakeTurn. What a step holds is decided by a scheduler per base that knows
// no clock, goroutine or model (scheduler.go; kv_cache.go and prefix_sharing.go for KV cells and slots, step_budget.go
// and step_cost.go for the number of prompt tokens, owner_share.go and owner_use.go for what each of several owners
// gets). Which base steps next is decided by measured time (round_robin.go). Tokens become text in text_assembler.go;
// prompt_scores.go has the log-probabilities of prompts.
//
// The package doesn't tokenise, doesn't render prompts, doesn't load models and doesn't know who reads the tokens.
package batch
