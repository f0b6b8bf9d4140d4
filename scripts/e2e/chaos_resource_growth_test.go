package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// resourceUsage is what the proxy holds. heapGoalBytes is the heap size at which the collector runs next: twice what
// was alive at its last run, or 4 MiB. Unlike the resident memory it doesn't depend on when pages are given back.
type resourceUsage struct{ goroutines, openFiles, residentBytes, heapGoalBytes float64 }

func (s *testServer) resourceUsage() resourceUsage {
	scraped := s.scrape()
	return resourceUsage{scraped.sum("go_goroutines"), scraped.sum("process_open_fds"), scraped.sum("process_resident_memory_bytes"), scraped.sum("go_memstats_next_gc_bytes")}
}

// mediansOfTenths divides the samples into ten equal parts and returns the medians of each.
func mediansOfTenths(usage []resourceUsage) []resourceUsage {
	medianOf := func(part []resourceUsage, of func(resourceUsage) float64) float64 {
		var all []float64
		for _, s := range part {
			all = append(all, of(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	var list []resourceUsage
	for i := range 10 {
		part := usage[i*len(usage)/10 : max((i+1)*len(usage)/10, i*len(usage)/10+1)]
		list = append(list, resourceUsage{
			medianOf(part, func(s resourceUsage) float64 { return s.goroutines }),
			medianOf(part, func(s resourceUsage) float64 { return s.openFiles }),
			medianOf(part, func(s resourceUsage) float64 { return s.residentBytes }),
			medianOf(part, func(s resourceUsage) float64 { return s.heapGoalBytes }),
		})
	}
	return list
}

// checkGrowth compares the last tenth of a run with the first.
func (c *chaosTest) checkGrowth(usage []resourceUsage) {
	if len(usage) < 10 {
		return // too short to tell
	}
	list := mediansOfTenths(usage)
	first, last := list[0], list[9]
	var resident, heap []string
	for _, s := range list {
		resident = append(resident, fmt.Sprintf("%.1f", s.residentBytes/(1<<20)))
		heap = append(heap, fmt.Sprintf("%.1f", s.heapGoalBytes/(1<<20)))
	}
	c.server.t.Logf("proxy, first and last tenth: goroutines %.0f, %.0f; files %.0f, %.0f; by tenths: heap goal MiB %s; resident MiB %s",
		first.goroutines, last.goroutines, first.openFiles, last.openFiles, strings.Join(heap, " "), strings.Join(resident, " "))
	if !c.long {
		return // the first tenth is still growing
	}
	if last.goroutines > first.goroutines+10 || last.openFiles > first.openFiles+5 {
		c.server.t.Error("goroutines or files grew")
	}
	if last.heapGoalBytes > 1.25*first.heapGoalBytes+1<<20 || last.residentBytes > 1.2*first.residentBytes+8<<20 {
		c.server.t.Error("memory grew")
	}
}
