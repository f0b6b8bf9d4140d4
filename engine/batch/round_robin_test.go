package batch

import (
	"strings"
	"testing"
)

func TestRoundRobin(t *testing.T) {
	run := func(costs map[string]int64, ready func(round int) []string, rounds int) string {
		var ts roundRobin[string]
		var got strings.Builder
		for i := range rounds {
			var list []candidate[string]
			for _, k := range ready(i) {
				list = append(list, candidate[string]{k, 10})
			}
			k, ok := ts.pick(list)
			if !ok {
				k = "-"
			}
			got.WriteString(k)
			ts.charge(costs[k])
		}
		return got.String()
	}
	always := func(keys ...string) func(int) []string { return func(int) []string { return keys } }
	for name, tc := range map[string]struct {
		costs map[string]int64
		ready func(int) []string
		want  string
	}{
		"equal cost, equal turns":         {map[string]int64{"a": 5, "b": 5}, always("a", "b"), "aabbaabb"},
		"by cost, not by count":           {map[string]int64{"a": 10, "b": 2}, always("a", "b"), "abbbbbabbbbb"},
		"what was overspent is paid back": {map[string]int64{"a": 15, "b": 5}, always("a", "b"), "abbabbabb"},
		"debt doesn't shut out":           {map[string]int64{"a": 1000, "b": 10}, always("a", "b"), "abababab"},
		"alone without limit":             {map[string]int64{"a": 1000}, always("a"), "aaaa"},
		"nobody":                          {nil, always(), "--"},
		"who leaves loses the turn, who comes back queues up": {map[string]int64{"a": 5, "b": 5, "c": 5}, func(i int) []string {
			if i == 1 || i == 2 {
				return []string{"b", "c"}
			}
			return []string{"a", "b", "c"}
		}, "abbccaa"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(tc.costs, tc.ready, len(tc.want)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
