package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"tandem/scripts/bench/load"
)

// answersOf is a server whose answers have as many tokens as are told for each of its requests in turn.
func answersOf(t *testing.T, name string, tokens ...int) load.Server {
	next := make(chan int, len(tokens))
	for _, n := range tokens {
		next <- n
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "data: {\"result\":\"\",\"metadata\":{\"tokens_generated\":%d}}\n\n", <-next)
	}))
	t.Cleanup(s.Close)
	request := func(load.Job) (*http.Request, error) { return http.NewRequest(http.MethodPost, s.URL, nil) }
	return load.Server{Name: name, Request: request, Last: lastOfInfer}
}

// A server that answers at half the length, as one with another prompt does, isn't twice as fast.
func TestServersDoTheSameWork(t *testing.T) {
	for _, c := range []struct {
		name         string
		ours, theirs []int
		rounds       int
		equal        bool
	}{
		{"equal", []int{16, 16}, []int{16, 16}, 1, true},
		{"half as long", []int{8, 8}, []int{16, 16}, 1, false},
		{"twice as long", []int{16, 16}, []int{8, 8}, 1, false},
		{"one differs in one round of three", []int{64, 64, 64, 64, 64, 64}, []int{64, 64, 64, 47, 64, 64}, 3, true},
		{"all a little shorter", []int{16, 16}, []int{15, 15}, 1, false},
	} {
		servers := []load.Server{answersOf(t, "tandem", c.ours...), answersOf(t, peerName, c.theirs...)}
		b := &serving{ctx: context.Background(), rounds: c.rounds, began: time.Now()}
		runs, err := b.alternate(c.name, servers, func(s load.Server, round int) (load.Run, error) {
			return b.closed(s, make([]load.Job, 2), 1)
		})
		if errors.Is(err, errUnequalWork) == c.equal || c.equal && (err != nil || len(runs) != 2) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
