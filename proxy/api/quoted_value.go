package api

import (
	"strconv"
	"unicode/utf8"
)

// maxQuotedBytes is how many bytes of a client's string an error repeats.
const maxQuotedBytes = 64

// quote makes a client's string safe to repeat in a message: short, printable, on one line.
func quote(s string) string {
	short := clip(s)
	if len(short) < len(s) {
		return strconv.Quote(short) + "…"
	}
	return strconv.Quote(s)
}

// clip cuts s to maxQuotedBytes, between characters.
func clip(s string) string {
	if len(s) <= maxQuotedBytes {
		return s
	}
	end := maxQuotedBytes
	for end > maxQuotedBytes-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
