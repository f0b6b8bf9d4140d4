package server

import "testing"

func TestWholeEvents(t *testing.T) {
	for _, test := range []struct {
		events string
		most   int
		want   string
	}{
		{"data: 1\n\n", 4096, "data: 1\n\n"},
		{"data: 1\n\ndata: 2\n\n", 18, "data: 1\n\ndata: 2\n\n"},
		{"data: 1\n\ndata: 2\n\n", 17, "data: 1\n\n"},
		{"data: 1\n\ndata: 2\n\ndata: 3\n\n", 20, "data: 1\n\ndata: 2\n\n"},
		{"data: longer than the room\n\n", 10, "data: long"},
		{"er than the room\n\ndata: 2\n\n", 20, "er than the room\n\n"},
		{"a: 1\n\nb", 5, "a: 1\n"},
		{"", 5, ""},
	} {
		if got := string(wholeEvents([]byte(test.events), test.most)); got != test.want {
			t.Errorf("of %q at most %d: %q, want %q", test.events, test.most, got, test.want)
		}
	}
}
