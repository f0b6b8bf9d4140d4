package api

import (
	"strconv"
	"unicode/utf8"
)

// quoteBytes is how much of a client's string an error repeats.
const quoteBytes = 64

// quote makes a client's string safe to repeat in a message: short, printable, on one line.
func quote(s string) string {
	short := clip(s)
	if len(short) < len(s) {
		return strconv.Quote(short) + "…"
	}
	return strconv.Quote(s)
}

// clip cuts s to quoteBytes, between characters.
func clip(s string) string {
	if len(s) <= quoteBytes {
		return s
	}
	end := quoteBytes
	for end > quoteBytes-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
