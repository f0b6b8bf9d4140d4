package cluster

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// row is a line of the table that a run prints at its end.
type row struct{ tried, bound, seen string }

var results struct {
	sync.Mutex
	rows []row
}

// record adds a line to the table. What is seen may be printed by fmt.
func record(tried, bound string, seen string, values ...any) {
	results.Lock()
	defer results.Unlock()
	results.rows = append(results.rows, row{tried, bound, fmt.Sprintf(seen, values...)})
}

// atMost fails the test when something took longer than its bound, and records it in any case.
func atMost(t *testing.T, tried string, bound, took time.Duration) {
	t.Helper()
	record(tried, fmt.Sprintf("at most %v", bound), "%.1f s", took.Seconds())
	if took > bound {
		t.Errorf("%s: %v, at most %v", tried, took, bound)
	}
}

func TestMain(m *testing.M) {
	if address := os.Getenv(listenOn); address != "" {
		listen(address)
		return
	}
	began := time.Now()
	code := m.Run()
	if len(results.rows) > 0 {
		fmt.Printf("\n| Tried | Bound | Seen |\n|---|---|---|\n")
		for _, r := range results.rows {
			fmt.Printf("| %s | %s | %s |\n", r.tried, r.bound, r.seen)
		}
		fmt.Printf("\n%d results in %.0f s\n", len(results.rows), time.Since(began).Seconds())
	}
	os.Exit(code)
}
