package api

import (
	"strconv"
	"unicode/utf8"
)

// maxQuotedBytes is how many bytes of a client's string an error repeats.
const maxQuotedBytes = 64

// Quote makes a client's string safe to repeat in a message: short, printable, on one line.
func Quote(s string) string {
	short := Clip(s)
	if len(short) < len(s) {
		return strconv.Quote(short) + "…"
	}
	return strconv.Quote(s)
}

// Clip cuts s to maxQuotedBytes, between characters.
func Clip(s string) string {
	if len(s) <= maxQuotedBytes {
		return s
	}
	end := maxQuotedBytes
	for end > maxQuotedBytes-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
