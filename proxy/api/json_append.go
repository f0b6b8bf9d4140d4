package api

import (
	"strconv"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// isUnescapedASCII marks the ASCII bytes that need no escape in a JSON string.
var isUnescapedASCII = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// AppendString appends s as a JSON string. Bytes that aren't UTF-8 become U+FFFD, and every character that a reader may
// take for the end of a line is escaped: control characters as JSON demands, and those of isLineTerminator.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if isUnescapedASCII[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			dst = appendEscaped(dst, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			start = i + size
		case isLineTerminator(r):
			dst = append(dst, s[start:i]...)
			dst = appendUnicode(dst, r)
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// isLineTerminator reports whether r is a character beyond ASCII at which Unicode ends a line. Python's str.splitlines
// splits there, and so do many clients that read events; JavaScript did at two of them.
func isLineTerminator(r rune) bool { return r == '\u0085' || r == '\u2028' || r == '\u2029' }

// appendUnicode appends the escape \uXXXX of a character of at most four hexadecimal digits.
func appendUnicode(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return appendUnicode(dst, rune(c))
}

// AppendTimestamp appends Unix seconds with three digits, as documented: 1703123456.789.
func AppendTimestamp(dst []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		ms = 0
	}
	dst = strconv.AppendInt(dst, ms/1000, 10)
	return appendFraction(append(dst, '.'), ms%1000, 3)
}

// AppendSeconds appends a duration as seconds with at least three digits, and up to six where they aren't zero: 0.245,
// 0.000133.
func AppendSeconds(dst []byte, d time.Duration) []byte {
	us := max(d, 0).Round(time.Microsecond).Microseconds()
	dst = append(strconv.AppendInt(dst, us/1e6, 10), '.')
	if us%1000 == 0 {
		return appendFraction(dst, us%1e6/1000, 3)
	}
	return appendFraction(dst, us%1e6, 6)
}

func appendFraction(dst []byte, n int64, digits int) []byte {
	for scale := pow10(digits - 1); scale > 0; scale /= 10 {
		dst = append(dst, byte('0'+n/scale%10))
	}
	return dst
}

func pow10(n int) int64 {
	p := int64(1)
	for range n {
		p *= 10
	}
	return p
}

// AppendMember appends name as it is, which ends in a colon, and v as a JSON string: AppendMember(dst, `,"id":`, id).
func AppendMember(dst []byte, name, v string) []byte {
	return AppendString(append(dst, name...), v)
}

// AppendBool appends name as it is, which ends in a colon, and v.
func AppendBool(dst []byte, name string, v bool) []byte {
	return strconv.AppendBool(append(dst, name...), v)
}

// AppendInt appends name as it is, which ends in a colon, and v.
func AppendInt(dst []byte, name string, v int) []byte {
	return strconv.AppendInt(append(dst, name...), int64(v), 10)
}

// AppendUint appends name as it is, which ends in a colon, and v.
func AppendUint(dst []byte, name string, v uint64) []byte {
	return strconv.AppendUint(append(dst, name...), v, 10)
}

// AppendComma separates the members of a list from the second one on.
func AppendComma(dst []byte, i int) []byte {
	if i == 0 {
		return dst
	}
	return append(dst, ',')
}
