package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// size is what the proxy holds. heap is what the collector aims for: twice what was alive at its last run, or 4 MiB; unlike the resident
// memory it doesn't depend on when pages are given back.
type size struct{ goroutines, files, resident, heap float64 }

func (s *stack) size() size {
	p := s.scrape()
	return size{p.sum("go_goroutines"), p.sum("process_open_fds"), p.sum("process_resident_memory_bytes"), p.sum("go_memstats_next_gc_bytes")}
}

// tenths are the medians of ten equal parts of the samples.
func tenths(sizes []size) []size {
	middle := func(part []size, of func(size) float64) float64 {
		var all []float64
		for _, s := range part {
			all = append(all, of(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	var list []size
	for i := range 10 {
		part := sizes[i*len(sizes)/10 : max((i+1)*len(sizes)/10, i*len(sizes)/10+1)]
		list = append(list, size{
			middle(part, func(s size) float64 { return s.goroutines }),
			middle(part, func(s size) float64 { return s.files }),
			middle(part, func(s size) float64 { return s.resident }),
			middle(part, func(s size) float64 { return s.heap }),
		})
	}
	return list
}

// checkGrowth compares the last tenth of a run with the first.
func (c *chaos) checkGrowth(sizes []size) {
	if len(sizes) < 10 {
		return // too short to tell
	}
	list := tenths(sizes)
	first, last := list[0], list[9]
	var resident, heap []string
	for _, s := range list {
		resident = append(resident, fmt.Sprintf("%.1f", s.resident/(1<<20)))
		heap = append(heap, fmt.Sprintf("%.1f", s.heap/(1<<20)))
	}
	c.s.t.Logf("proxy, first and last tenth: goroutines %.0f, %.0f; files %.0f, %.0f; by tenths: heap goal MiB %s; resident MiB %s",
		first.goroutines, last.goroutines, first.files, last.files, strings.Join(heap, " "), strings.Join(resident, " "))
	if !c.long {
		return // the first tenth is still growing
	}
	if last.goroutines > first.goroutines+10 || last.files > first.files+5 {
		c.s.t.Error("goroutines or files grew")
	}
	if last.heap > 1.25*first.heap+1<<20 || last.resident > 1.2*first.resident+8<<20 {
		c.s.t.Error("memory grew")
	}
}
