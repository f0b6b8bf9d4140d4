package link

import (
	"time"
)

// fieldWriter keeps the first error of several setters. Empty values are left out: they read the same.
type fieldWriter struct{ err error }

func (w *fieldWriter) text(set func(string) error, v string) {
	if w.err == nil && v != "" {
		w.err = set(v)
	}
}

func (w *fieldWriter) data(set func([]byte) error, v []byte) {
	if w.err == nil && len(v) > 0 {
		w.err = set(v)
	}
}

// nanos is a duration in the schema's unit; a negative one becomes 0.
func nanos(d time.Duration) uint64 { return uint64(max(d, 0)) }
