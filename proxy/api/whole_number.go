package api

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// WholeNumber is a whole number of 0 or more. JSON has only one kind of number, and some clients write 100.0 or 1e2
// where they mean 100.
type WholeNumber uint64

var errNotWholeNumber = errors.New("not a whole number")

// UnmarshalJSONFrom takes every way of writing a whole number, exactly: no digit of a seed is lost in a float.
func (w *WholeNumber) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '0' {
		return errNotWholeNumber
	}
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	n, ok := ParseWholeNumber(token.String())
	if !ok {
		return errNotWholeNumber
	}
	*w = WholeNumber(n)
	return nil
}

// ParseWholeNumber reads a JSON number. A number that is too large for 64 bits becomes the largest 64-bit number, so
// that a range check finds it.
func ParseWholeNumber(number string) (n uint64, ok bool) {
	number, negative := strings.CutPrefix(number, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	before, after, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(before+after, "0")
	significant := strings.TrimRight(digits, "0")
	if significant == "" {
		return 0, true // however it is written, also -0
	}
	if negative {
		return 0, false
	}
	power := 0
	if exponent != "" {
		// An exponent that doesn't fit is cut to the largest or smallest int, which leads to the same result.
		power, _ = strconv.Atoi(exponent)
		power = max(min(power, math.MaxInt32), math.MinInt32)
	}
	zeros := power - len(after) + len(digits) - len(significant)
	if zeros < 0 {
		return 0, false
	}
	if len(significant)+zeros > len("18446744073709551615") {
		return math.MaxUint64, true
	}
	n, err := strconv.ParseUint(significant+strings.Repeat("0", zeros), 10, 64)
	if err != nil {
		return math.MaxUint64, true
	}
	return n, true
}

// ConvertWholeNumber converts a number that has passed its range check; nil stays nil.
func ConvertWholeNumber[T int | uint64](w *WholeNumber) *T {
	if w == nil {
		return nil
	}
	n := T(*w)
	return &n
}
