package api

import (
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Seed is a seed as OpenAI's clients send it: any whole number of 64 bits with a sign, of which the lowest 53 bits (in
// two's complement) are kept. -1 is the same as 2^53-1, and whole numbers from 0 to MaxSeed are what they are.
type Seed uint64

// SeedRequirement says for an error what a Seed must be.
const SeedRequirement = "a whole number from -2^63 to 2^63-1"

var errSeed = errors.New("not a whole number of 64 bits")

// UnmarshalJSONFrom takes every way of writing a whole number.
func (s *Seed) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '0' {
		return errSeed
	}
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	digits, negative := strings.CutPrefix(token.String(), "-")
	n, ok := ParseWholeNumber(digits)
	if !ok || n > 1<<63 || n == 1<<63 && !negative {
		return errSeed
	}
	if negative {
		n = -n
	}
	*s = Seed(n & MaxSeed)
	return nil
}
