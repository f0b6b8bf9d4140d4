package api

import (
	"strconv"
	"time"
)

// AppendTimings appends the member timings of a whole answer, in llama-server's names: tokens, and milliseconds by the
// engine's clock.
func AppendTimings(dst []byte, m *Metadata) []byte {
	dst = appendMilliseconds(append(dst, `,"timings":{"queue_ms":`...), m.QueueTime)
	dst = AppendInt(dst, `,"cache_n":`, m.CachedTokens)
	dst = AppendInt(dst, `,"prompt_n":`, m.PromptTokens-m.CachedTokens)
	dst = appendMilliseconds(append(dst, `,"prompt_ms":`...), m.PrefillTime)
	dst = AppendInt(dst, `,"predicted_n":`, m.TokensGenerated)
	return append(appendMilliseconds(append(dst, `,"predicted_ms":`...), m.DecodeTime), '}')
}

// AppendTokenTimings appends the member timings of a part of an answer; none where it has no tokens.
func AppendTokenTimings(dst []byte, tokens int, took time.Duration) []byte {
	if tokens == 0 {
		return dst
	}
	dst = AppendInt(dst, `,"timings":{"predicted_n":`, tokens)
	return append(appendMilliseconds(append(dst, `,"predicted_ms":`...), took), '}')
}

func appendMilliseconds(dst []byte, d time.Duration) []byte {
	return strconv.AppendFloat(dst, float64(d.Microseconds())/1000, 'f', -1, 64)
}

// UntoldTokens are tokens of a stream of which no event has told the time, and that time.
type UntoldTokens struct {
	tokens int
	took   time.Duration
}

// Add adds those of a delta.
func (u *UntoldTokens) Add(d *Delta) {
	u.tokens += d.Tokens
	u.took += d.Took
}

// AppendTimings appends the member timings of an event that tells of them all.
func (u *UntoldTokens) AppendTimings(dst []byte) []byte {
	dst = AppendTokenTimings(dst, u.tokens, u.took)
	*u = UntoldTokens{}
	return dst
}
