package limit

import (
	"iter"
	"strconv"
	"time"
)

// Names of the headers that report its limit to a client.
const (
	HeaderLimit           = "X-Ratelimit-Limit-Requests"
	HeaderRemaining       = "X-Ratelimit-Remaining-Requests"
	HeaderLimitTokens     = "X-Ratelimit-Limit-Tokens" // of a key with a limit of tokens a minute
	HeaderRemainingTokens = "X-Ratelimit-Remaining-Tokens"
	HeaderResetTokens     = "X-Ratelimit-Reset-Tokens"
	HeaderReset           = "X-Ratelimit-Reset-Requests"
	HeaderRetryAfter      = "Retry-After"
	HeaderPolicy          = "RateLimit-Policy" // of the IETF's draft, with HeaderRateLimit
	HeaderRateLimit       = "RateLimit"
)

// policyName names our only policy in the headers of the IETF's draft.
const policyName = `"default"`

// Headers gives the name and value of each header of the decision; none when there is no limit. ietf adds the pair of
// the IETF's draft (draft-ietf-httpapi-ratelimit-headers-11).
func (d Decision) Headers(ietf bool) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if d.Rate.Unlimited() {
			return
		}
		ok := yield(HeaderLimit, strconv.Itoa(d.Rate.Requests)) &&
			yield(HeaderRemaining, strconv.Itoa(d.Remaining)) &&
			yield(HeaderReset, FormatReset(d.ResetAfter))
		if ok && !d.Allowed {
			ok = yield(HeaderRetryAfter, strconv.Itoa(RetrySeconds(d.RetryAfter)))
		}
		if ok && ietf {
			_ = yield(HeaderPolicy, d.policy()) && yield(HeaderRateLimit, d.rateLimit())
		}
	}
}

// TokenHeaders gives the headers of a decision about tokens.
func (d Decision) TokenHeaders() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = yield(HeaderLimitTokens, strconv.Itoa(d.Rate.Requests)) &&
			yield(HeaderRemainingTokens, strconv.Itoa(d.Remaining)) &&
			yield(HeaderResetTokens, FormatReset(d.ResetAfter))
	}
}

func (d Decision) policy() string {
	return policyName + ";q=" + strconv.Itoa(d.Rate.Requests) + ";w=" + strconv.Itoa(ceil(d.Rate.Unit, time.Second))
}

func (d Decision) rateLimit() string {
	return policyName + ";r=" + strconv.Itoa(d.Remaining) + ";t=" + strconv.Itoa(ceil(d.ResetAfter, time.Second))
}

// FormatReset writes a duration as OpenAI's clients read it: 12ms, 6m0s. It is rounded up to milliseconds.
func FormatReset(d time.Duration) string {
	return (time.Duration(ceil(d, time.Millisecond)) * time.Millisecond).String()
}

// RetrySeconds is the value of Retry-After: whole seconds, rounded up, at least 1.
func RetrySeconds(d time.Duration) int { return max(ceil(d, time.Second), 1) }

func ceil(d, unit time.Duration) int { return int((max(d, 0) + unit - 1) / unit) }
