// Package batch computes many answers at once on one device: sequences join and leave a common decode step at every step.
//
//	Submit ─▶ inbox ─▶ waiting ─▶ slot: prompt chunks ─▶ one token a step ─▶ Summary, Release
//	                      ▲          │
//	                      └──────────┘ preempted: cells taken away, tokens kept
//
// An Executor is one goroutine on one OS thread; it alone calls Step, Truncate and CopyPrefix of the runners given to Attach, and
// whatever Do passes in. What a step holds is decided by a scheduler per base that knows no clock, goroutine or model (scheduler.go);
// which base steps next is decided by measured time (turns.go). Tokens become text in text.go.
//
// The package doesn't tokenise, doesn't render prompts, doesn't load models and doesn't know who reads the tokens.
package batch
