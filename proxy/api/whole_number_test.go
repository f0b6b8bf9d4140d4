package api

import (
	"math"
	"math/big"
	"strings"
	"testing"
)

func TestWholeNumbersHoweverWritten(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "-0": 0, "0.0": 0, "-0.00": 0, "0e5": 0, "0e-99999999999999999999": 0, "7": 7, "100.0": 100, "1e2": 100, "1E+2": 100, "1.5e1": 15, "1500e-2": 15,
		"1200.0e-2": 12, "9007199254740991": 1<<53 - 1, "9007199254740991.0": 1<<53 - 1, "9007199254740.991e3": 1<<53 - 1,
		"18446744073709551615": math.MaxUint64, "18446744073709551616": math.MaxUint64, "1e400": math.MaxUint64, "1e99999999999999999999": math.MaxUint64,
	} {
		if got, ok := ParseWholeNumber(text); !ok || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"0.5", "1.5", "-1", "-1e2", "1e-1", "15e-2", "100.01", "1e-99999999999999999999", "9007199254740991.5"} {
		if got, ok := ParseWholeNumber(text); ok {
			t.Errorf("%s is %d", text, got)
		}
	}
}

func FuzzWholeNumber(f *testing.F) {
	for _, text := range []string{"0", "-0.0", "1.50e1", "123456789012345678901", "1e-5", "7e3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		exact, ok := new(big.Rat).SetString(text)
		if !ok || len(text) > 12 || strings.ContainsAny(text, "_/xXoObBpP+ ") || !strings.ContainsAny(text[:1], "-0123456789") {
			return // not as JSON writes numbers, or with an exponent that takes long
		}
		got, isWhole := ParseWholeNumber(text)
		if want := exact.IsInt() && exact.Sign() >= 0; isWhole != want {
			t.Fatalf("%s is whole: %v", text, isWhole)
		}
		if isWhole && exact.Num().IsUint64() && exact.Num().Uint64() != got {
			t.Fatalf("%s is %d", text, got)
		}
	})
}
