package queue

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func item(id uint64, c Class, base string) Item {
	return Item{ID: id, Order: id, Class: c, Base: base, Bytes: 10}
}

// drain takes out everything that may go.
func drain(q *Queue, allow func(Item) Verdict) []uint64 {
	var ids []uint64
	for {
		it, ok := q.Next(allow)
		if !ok {
			return ids
		}
		ids = append(ids, it.ID)
	}
}

func always(Item) Verdict { return Dispatch }

func TestPushLimits(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
		before int
		item   Item
		want   PushResult
	}{
		{"room", Limits{Items: 3, Bytes: 100}, 2, item(9, Fresh, "a"), Queued},
		{"places taken", Limits{Items: 2, Bytes: 100}, 2, item(9, Fresh, "a"), TooManyItems},
		{"bytes taken", Limits{Items: 5, Bytes: 29}, 2, item(9, Fresh, "a"), TooManyBytes},
		{"bytes just fit", Limits{Items: 5, Bytes: 30}, 2, item(9, Fresh, "a"), Queued},
		{"no room at all", Limits{Items: 0, Bytes: 100}, 0, item(9, Fresh, "a"), TooManyItems},
		{"a replay is never refused", Limits{Items: 2, Bytes: 20}, 2, item(9, Replay, "a"), Queued},
		{"a suspect is never refused", Limits{Items: 2, Bytes: 20}, 2, item(9, Suspect, "a"), Queued},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := New(tt.limits)
			for i := range tt.before {
				q.Push(item(uint64(i+1), Fresh, "a"))
			}
			if got := q.Push(tt.item); got != tt.want {
				t.Fatalf("Push: %v, want %v", got, tt.want)
			}
			want := tt.before
			if tt.want == Queued {
				want++
			}
			if q.Len() != want || q.Bytes() != int64(10*want) {
				t.Errorf("%d items of %d bytes wait, want %d", q.Len(), q.Bytes(), want)
			}
		})
	}
}

func TestNextOrder(t *testing.T) {
	only := func(bases ...string) func(Item) Verdict {
		return func(it Item) Verdict {
			if slices.Contains(bases, it.Base) {
				return Dispatch
			}
			return SkipBase
		}
	}
	tests := []struct {
		name  string
		items []Item
		allow func(Item) Verdict
		want  []uint64
	}{
		{"first come, first served over all bases", []Item{item(1, Fresh, "a"), item(2, Fresh, "b"), item(3, Fresh, "a")}, always, []uint64{1, 2, 3}},
		{"a base without credit holds up no other", []Item{item(1, Fresh, "a"), item(2, Fresh, "b"), item(3, Fresh, "b")}, only("b"), []uint64{2, 3}},
		{"replays first", []Item{item(1, Fresh, "a"), item(2, Fresh, "a"), item(3, Replay, "a")}, always, []uint64{3, 1, 2}},
		{"suspects after replays, before fresh ones", []Item{item(1, Suspect, "a"), item(2, Fresh, "a"), item(3, Replay, "b")}, always, []uint64{3, 1, 2}},
		{"replays by admission, however they came back", []Item{item(5, Replay, "a"), item(3, Replay, "a"), item(4, Replay, "a"), item(1, Replay, "b")}, always, []uint64{1, 3, 4, 5}},
		{"nothing goes past one that holds", []Item{item(1, Suspect, "a"), item(2, Fresh, "b")}, func(it Item) Verdict {
			if it.Class == Suspect {
				return StopAll
			}
			return Dispatch
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := New(Limits{Items: 100, Bytes: 1000})
			for _, it := range tt.items {
				q.Push(it)
			}
			if got := drain(q, tt.allow); !slices.Equal(got, tt.want) {
				t.Errorf("order %v, want %v", got, tt.want)
			}
			if q.Len() != len(tt.items)-len(tt.want) {
				t.Errorf("%d items left", q.Len())
			}
		})
	}
}

func TestVerdictIsAskedForEachItem(t *testing.T) {
	q := New(Limits{Items: 100, Bytes: 1000})
	for i := range 6 {
		q.Push(item(uint64(i+1), Fresh, []string{"a", "b"}[i%2]))
	}
	credit := map[string]int{"a": 1, "b": 2}
	got := drain(q, func(it Item) Verdict {
		if credit[it.Base] == 0 {
			return SkipBase
		}
		credit[it.Base]--
		return Dispatch
	})
	if want := []uint64{1, 2, 4}; !slices.Equal(got, want) {
		t.Errorf("released %v, want %v", got, want)
	}
}

func TestSkippedItemKeepsItsPlace(t *testing.T) {
	q := New(Limits{Items: 100, Bytes: 1000})
	for id := uint64(1); id <= 4; id++ {
		q.Push(item(id, Fresh, []string{"a", "b"}[id/4]))
	}
	skip := func(ids ...uint64) func(Item) Verdict {
		return func(it Item) Verdict {
			if slices.Contains(ids, it.ID) {
				return SkipItem
			}
			return Dispatch
		}
	}
	for _, tt := range []struct {
		skipped []uint64
		want    uint64
	}{{[]uint64{1}, 2}, {[]uint64{1, 3}, 4}, {[]uint64{1, 3}, 0}, {nil, 1}, {nil, 3}} {
		if it, _ := q.Next(skip(tt.skipped...)); it.ID != tt.want {
			t.Errorf("passing %v: %d goes, want %d", tt.skipped, it.ID, tt.want)
		}
	}
}

func TestExpire(t *testing.T) {
	start := time.Unix(1000, 0)
	q := New(Limits{Items: 100, Bytes: 1000})
	for i, after := range []time.Duration{3, 1, 0, 2} {
		it := item(uint64(i+1), Fresh, "a")
		if after > 0 {
			it.Deadline = start.Add(after * time.Second)
		}
		q.Push(it)
	}
	for _, tt := range []struct {
		after time.Duration
		want  []uint64
	}{{time.Second - 1, nil}, {2 * time.Second, []uint64{2, 4}}, {time.Hour, []uint64{1}}} {
		var got []uint64
		for _, it := range q.Expire(start.Add(tt.after)) {
			got = append(got, it.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("after %v: expired %v, want %v", tt.after, got, tt.want)
		}
	}
	if got := drain(q, always); !slices.Equal(got, []uint64{3}) {
		t.Errorf("left %v, want the one without a deadline", got)
	}
}

func TestRemove(t *testing.T) {
	q := New(Limits{Items: 100, Bytes: 1000})
	for id := uint64(1); id <= 5; id++ {
		q.Push(item(id, Fresh, []string{"a", ""}[id%2]))
	}
	q.Push(item(6, Replay, ""))
	if it, ok := q.Remove(3); !ok || it.ID != 3 {
		t.Errorf("Remove(3) = %v, %v", it, ok)
	}
	if _, ok := q.Remove(3); ok {
		t.Error("an item was removed twice")
	}
	var got []uint64
	for _, it := range q.RemoveBase("") {
		got = append(got, it.ID)
	}
	if want := []uint64{1, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("RemoveBase: %v, want %v", got, want)
	}
	if q.Has(Replay) || !q.Has(Fresh) {
		t.Error("Has is wrong")
	}
	if n := len(q.RemoveAll()); n != 2 || q.Len() != 0 || q.Bytes() != 0 {
		t.Errorf("RemoveAll gave %d, left %d items of %d bytes", n, q.Len(), q.Bytes())
	}
}

// TestAgainstModel does random operations and compares the queue with a slice.
func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	q := New(Limits{Items: 50, Bytes: 400})
	var model []Item
	for id := uint64(1); id < 20_000; id++ {
		switch r.IntN(4) {
		case 0, 1:
			it := item(id, Class(r.IntN(int(classCount))), []string{"a", "b", "c"}[r.IntN(3)])
			it.Order = uint64(r.IntN(1 << 30))
			if q.Push(it) == Queued {
				model = append(model, it)
			}
		case 2:
			if len(model) > 0 {
				i := r.IntN(len(model))
				q.Remove(model[i].ID)
				model = slices.Delete(model, i, i+1)
			}
		case 3:
			denied := []string{"a", "b", "c"}[r.IntN(3)]
			best := -1
			for i, it := range model {
				if it.Base != denied && (best < 0 || it.Class < model[best].Class || it.Class == model[best].Class && it.Order < model[best].Order) {
					best = i
				}
			}
			got, ok := q.Next(func(it Item) Verdict {
				if it.Base == denied {
					return SkipBase
				}
				return Dispatch
			})
			if ok != (best >= 0) || ok && got != model[best] {
				t.Fatalf("step %d: Next gave %v, %v", id, got, ok)
			}
			if ok {
				model = slices.Delete(model, best, best+1)
			}
		}
		if q.Len() != len(model) || q.Bytes() != int64(10*len(model)) {
			t.Fatalf("step %d: %d items of %d bytes, want %d", id, q.Len(), q.Bytes(), len(model))
		}
	}
}
