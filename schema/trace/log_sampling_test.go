package trace

import (
	"fmt"
	"testing"
)

func TestOneInSoManyIsInTheLogSample(t *testing.T) {
	const requests, n = 20_000, 10
	chosen := 0
	for i := range requests {
		id := fmt.Sprintf("request-%d", i)
		if InLogSample(id, n) {
			chosen++
		}
		if !InLogSample(id, 1) || !InLogSample(id, 0) {
			t.Fatal("one in one isn't everybody")
		}
	}
	if want := requests / n; chosen < want*8/10 || chosen > want*12/10 {
		t.Errorf("%d of %d are chosen, want about %d", chosen, requests, want)
	}
}
