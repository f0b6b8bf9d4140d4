//go:build llama

package grammar

/*
#include <stdlib.h>
#include "llguidance_bridge.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// failure is the matcher's error, nil when there is none.
func (m *Matcher) failure() error {
	text := C.llg_matcher_get_error(m.handle)
	if text == nil {
		return nil
	}
	return llguidanceError(C.GoString(text))
}

// llguidanceError makes a Go error of the library's message, by its words: there are no error codes.
func llguidanceError(text string) error {
	text, _, _ = strings.Cut(text, "\n<")
	if strings.Contains(text, "NoExtensionBias") {
		return invalid("no text fits it")
	}
	own := withoutClientText(text)
	for _, words := range []string{"cancel", "fuel", "too many", "too complex", "too big", "limit", "Limit", "too large", "max is", "u16::MAX"} {
		if strings.Contains(own, words) {
			return fmt.Errorf("%w (%s)", ErrTooComplex, text)
		}
	}
	if strings.HasPrefix(text, "panic:") {
		return invalid("the library failed on it (%s)", text)
	}
	return invalid("%w", errors.New(text))
}

var quoted = regexp.MustCompile("'[^']*'|\"[^\"]*\"|`[^`]*`")

// withoutClientText removes from a message what it quotes of the client's text.
func withoutClientText(message string) string {
	if _, rest, ok := strings.Cut(message, regexErrorMarker); ok {
		_, message, _ = strings.Cut(rest, "error: ")
	}
	message, _, _ = strings.Cut(message, "Unknown format: ")
	return quoted.ReplaceAllString(message, "")
}
