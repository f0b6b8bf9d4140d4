package wire_test

import (
	"syscall"
	"testing"
	"time"

	"tandem/schema"
	"tandem/schema/wire"
)

// tokensStep is one decode step of n tokens, as the engine hands it over.
type tokensStep int

func (s tokensStep) Size() int                  { return 100 * int(s) }
func (s tokensStep) Build(f schema.Frame) error { return fillStep(f, int(s)) }
func (tokensStep) Release()                     {}

// BenchmarkStep sends steps of 256 tokens and reads every field that a proxy uses. cpu-us/token is both ends together;
// at 20,000 tokens/s a core's share is that times 0.02.
func BenchmarkStep(b *testing.B) {
	const streams = 256
	sender, receiver := pair(b, wire.Options{})
	b.ReportAllocs()
	start, begun := cpuTime(b), time.Now()
	underway := make(chan struct{}, 64)
	go func() {
		for range b.N {
			underway <- struct{}{}
			if sender.SendLater(tokensStep(streams)) != nil {
				return
			}
		}
	}()
	for range b.N {
		f, release, err := receiver.Read()
		if err != nil {
			b.Fatal(err)
		}
		if err := walk(f); err != nil {
			b.Fatal(err)
		}
		release()
		<-underway
	}
	tokens := float64(b.N) * streams
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/1e3/tokens, "cpu-us/token")
	b.ReportMetric(tokens/time.Since(begun).Seconds(), "tokens/s")
}

// BenchmarkPacedSteps is the same at 80 steps of 256 tokens a second, where every step wakes both ends.
func BenchmarkPacedSteps(b *testing.B) {
	const streams = 256
	sender, receiver := pair(b, wire.Options{})
	b.ReportAllocs()
	start := cpuTime(b)
	tick := time.NewTicker(time.Second / 80)
	defer tick.Stop()
	go func() {
		for range b.N {
			<-tick.C
			if sender.SendLater(tokensStep(streams)) != nil {
				return
			}
		}
	}()
	for range b.N {
		f, release, err := receiver.Read()
		if err != nil {
			b.Fatal(err)
		}
		if err := walk(f); err != nil {
			b.Fatal(err)
		}
		release()
	}
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/1e3/float64(b.N*streams), "cpu-us/token")
}

// BenchmarkPrompt sends one 100 KB prompt and waits for it.
func BenchmarkPrompt(b *testing.B) {
	sender, receiver := pair(b, wire.Options{})
	text := make([]byte, 100<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for range b.N {
		if err := sender.Send(prompt(1, text)); err != nil {
			b.Fatal(err)
		}
		f, release, err := receiver.Read()
		if err != nil {
			b.Fatal(err)
		}
		if err := walk(f); err != nil {
			b.Fatal(err)
		}
		release()
	}
}

func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
