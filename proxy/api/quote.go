package api

import "strconv"

// quoteBytes is how much of a client's string an error message repeats.
const quoteBytes = 64

// quote makes a client's string safe to repeat in a message: short, printable, on one line.
func quote(s string) string {
	if len(s) > quoteBytes {
		return strconv.Quote(s[:quoteBytes]) + "…"
	}
	return strconv.Quote(s)
}
