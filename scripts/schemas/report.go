//go:build llama

package main

import (
	"fmt"
	"os"
	"sort"
	"time"
)

func (e *evaluation) report(out *os.File) {
	fmt.Fprintf(out, "vocabulary            %d tokens\n", e.vocabulary.Size())
	fmt.Fprintf(out, "schemas, instances    %d, %d\n", e.schemaCount, e.instanceCount)
	fmt.Fprintf(out, "schemas right         %d\n", e.schemasRight)
	fmt.Fprintf(out, "schemas refused       %d\n", e.schemasRefused)
	fmt.Fprintf(out, "schemas too complex   %d (found out on the way)\n", e.schemasTooComplex)
	fmt.Fprintf(out, "schemas wrong         %d\n", e.schemasWrong)
	fmt.Fprintf(out, "invalid taken         %d\n", e.invalidAccepted)
	fmt.Fprintf(out, "valid refused         %d\n", e.validRejected)
	fmt.Fprintf(out, "compile               %s\n", describeTimes(e.compileTimes))
	fmt.Fprintf(out, "mask                  %s\n", describeTimes(e.maskTimes))
	fmt.Fprintf(out, "forced tokens         %d of %d\n", e.forcedTokens, e.tokenCount)
	reasons := make([]string, 0, len(e.refusalsByKeyword))
	for reason := range e.refusalsByKeyword {
		reasons = append(reasons, reason)
	}
	sort.Slice(reasons, func(i, k int) bool { return e.refusalsByKeyword[reasons[i]] > e.refusalsByKeyword[reasons[k]] })
	for _, reason := range reasons {
		fmt.Fprintf(out, "  refused for %-20s %d\n", reason, e.refusalsByKeyword[reason])
	}
}

func describeTimes(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	sort.Slice(list, func(i, k int) bool { return list[i] < list[k] })
	var sum time.Duration
	for _, d := range list {
		sum += d
	}
	at := func(q float64) time.Duration {
		return list[min(int(q*float64(len(list))), len(list)-1)].Round(time.Microsecond)
	}
	return fmt.Sprintf("mean %s, p50 %s, p99 %s, most %s (%d)", (sum / time.Duration(len(list))).Round(time.Microsecond), at(0.5), at(0.99), at(1), len(list))
}
