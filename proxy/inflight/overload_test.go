package inflight

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
)

// plotFile has TestGoodputUnderOverload draw its figures; docs/images/overload.svg is made so: make overload-plot.
var plotFile = flag.String("overload-plot", "", "write the plot of the overload simulation to this file")

// overload is one simulated run: requests come at random, at a rate that is a multiple of what the engine can answer.
type overload struct {
	load     float64 // offered ÷ capacity
	deadline time.Duration
	silent   bool // clients don't tell the deadline, and leave when it has passed
}

// overloadResult counts what became of the requests of a run.
type overloadResult struct {
	offered    int
	inTime     int           // answered before the deadline, while others came
	refused    int           // at once
	late       int           // taken in, and then not answered in time
	lateKnown  int           // of them, those that came when the speed was known
	badRetries int           // of them, those told to come back never, or later than client libraries do
	slowest    time.Duration // of those refused at once
}

const (
	overloadFor       = 2 * time.Minute
	overloadUnknown   = 10 * time.Second // until then the speed isn't known, and everything is let in
	overloadSequences = 32
	overloadAsked     = 64 // new tokens; half of them to all are used
	overloadDeadline  = 20 * time.Second
	overloadCapacity  = 3.2 // requests a second, about; what it really is, is measured
)

func (o overload) run(t *testing.T) (result overloadResult) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		lengths, pauses := rand.New(rand.NewPCG(1, uint64(100*o.load))), rand.New(rand.NewPCG(2, uint64(100*o.load)))
		engine := newSimulatedEngine(table, overloadSequences, func(*Submission) int { return overloadAsked/2 + lengths.IntN(overloadAsked/2+1) })
		stop := engine.start()
		defer stop()
		var clients []*simulatedClient
		start := time.Now()
		for time.Since(start) < overloadFor {
			pause := pauses.ExpFloat64() / (o.load * overloadCapacity)
			time.Sleep(time.Duration(pause * float64(time.Second))) // fake time
			request, patience := newRequest(nil), time.Duration(0)
			request.Timeout = o.deadline
			if o.silent {
				request.Timeout, patience = 0, o.deadline
			}
			request.Infer = &api.Request{Prompt: strings.Repeat("word", 48), MaxNewTokens: new(overloadAsked)}
			clients = append(clients, table.ask(t, request, patience))
		}
		for _, c := range clients {
			<-c.done
			result.add(c, o.deadline, start)
		}
	})
	return result
}

// add counts a client. Answers that come after the last request aren't counted, so that inTime is a rate.
func (r *overloadResult) add(c *simulatedClient, deadline time.Duration, start time.Time) {
	end := start.Add(overloadFor)
	r.offered++
	switch {
	case c.refused:
		r.refused++
		if s := c.err.RetryAfterSeconds(); s < 1 || s > 60 {
			r.badRetries++
		}
		r.slowest = max(r.slowest, c.took)
	case c.err != nil || c.gone || c.took > deadline:
		r.late++
		if c.sentAt.Sub(start) > overloadUnknown {
			r.lateKnown++
		}
	case !c.sentAt.Add(c.took).After(end):
		r.inTime++
	}
}

// However much is asked for, the engine answers in time nearly as much as it can answer at all, what it can't answer is
// refused at once, and below its capacity nothing is refused.
func TestGoodputUnderOverload(t *testing.T) {
	capacity := float64(overload{load: 4, deadline: time.Hour, silent: true}.run(t).inTime)
	loads := []float64{0.5, 0.8, 1, 1.5, 2, 3, 4, 6, 8}
	var byTime, byCount []float64
	for _, load := range loads {
		r := overload{load: load, deadline: overloadDeadline}.run(t)
		goodput := float64(r.inTime) / capacity
		t.Logf("load %.1f: %d offered, goodput %.2f, %d refused at once, %d late, of them %d when the speed was known", load, r.offered, goodput, r.refused, r.late, r.lateKnown)
		if load <= 0.8 && r.refused+r.late > 0 {
			t.Errorf("load %.1f: %d refused, %d late, want none", load, r.refused, r.late)
		}
		if load > 1 && goodput < 0.9 {
			t.Errorf("load %.1f: goodput is %.2f of the capacity, want 0.9", load, goodput)
		}
		if firstBurst := int(overloadUnknown.Seconds() * overloadCapacity * load); r.late-r.lateKnown > firstBurst {
			t.Errorf("load %.1f: %d late of those that came before the speed was known, want at most all (%d)", load, r.late-r.lateKnown, firstBurst)
		}
		// Who is refused learns it at once: of a hundred, one at most after waiting.
		if r.lateKnown > (r.refused+r.lateKnown)/100 {
			t.Errorf("load %.1f: %d late although the speed was known, beside %d refused at once", load, r.lateKnown, r.refused)
		}
		if r.slowest > 0 {
			t.Errorf("load %.1f: a refusal took %v", load, r.slowest)
		}
		if r.badRetries > 0 {
			t.Errorf("load %.1f: Retry-After isn't within a minute for %d requests", load, r.badRetries)
		}
		byTime = append(byTime, goodput)
		byCount = append(byCount, float64(overload{load: load, deadline: overloadDeadline, silent: true}.run(t).inTime)/capacity)
	}
	if *plotFile == "" {
		return
	}
	plot := linePlot{
		title: "Answers in time under overload", x: "requests that come ÷ requests that can be answered", y: "answered within 20 s ÷ capacity",
		at: loads, lines: []plotLine{{"refused by time (the default)", "#0072b2", byTime}, {"deadlines unknown: bounded by count only", "#d55e00", byCount}},
	}
	if err := os.WriteFile(*plotFile, []byte(plot.svg()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A long prompt isn't one of so many sequences with the same part of the engine's speed: an engine gives prompts most
// of its time. While others, all with shorter prompts, take all sequences, one is let in that can be answered in time.
func TestLongPromptUnderSaturation(t *testing.T) {
	for _, tt := range []struct {
		others int     // tokens of each of the other prompts
		spare  float64 // time with which it is let in ÷ time that it takes
	}{{10, 1.8}, {50, 1.5}, {200, 1.5}} {
		t.Run(fmt.Sprintf("beside prompts of %d tokens", tt.others), func(t *testing.T) {
			needed := longPromptBeside(t, tt.others, time.Hour)
			if needed.err != nil {
				t.Fatalf("with all the time in the world: %v", needed.err)
			}
			t.Logf("it takes %v", needed.took)
			enough := time.Duration(tt.spare * float64(needed.took))
			if c := longPromptBeside(t, tt.others, enough); c.err != nil {
				t.Errorf("with %v: after %v %v", enough, c.took, c.err)
			}
			if c := longPromptBeside(t, tt.others, needed.took/4); !c.refused {
				t.Errorf("with %v it was let in, and took %v", needed.took/4, c.took)
			}
		})
	}
}

// longPromptBeside asks a saturated engine for an answer to a prompt of 5000 tokens.
func longPromptBeside(t *testing.T, others int, timeout time.Duration) (long *simulatedClient) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		pauses := rand.New(rand.NewPCG(6, 6))
		engine := newSimulatedEngine(table, overloadSequences, func(*Submission) int { return overloadAsked })
		engine.chunks = 2.5
		stop := engine.start()
		defer stop()
		ask := func(timeout time.Duration, promptTokens int) *simulatedClient {
			r := newRequest(nil)
			r.Timeout, r.Infer = timeout, &api.Request{Prompt: strings.Repeat("word", promptTokens), MaxNewTokens: new(overloadAsked)}
			return table.ask(t, r, 0)
		}
		var clients []*simulatedClient
		for start := time.Now(); time.Since(start) < 2*time.Minute; {
			if long == nil && time.Since(start) > 30*time.Second {
				long = ask(timeout, 5000)
				clients = append(clients, long)
			}
			clients = append(clients, ask(90*time.Second, others))
			pause := pauses.ExpFloat64() / (1.5 * overloadCapacity)
			time.Sleep(time.Duration(pause * float64(time.Second))) // fake time
		}
		for _, c := range clients {
			<-c.done
		}
	})
	return long
}

// A refused client that comes back after Retry-After finds room, if nobody else comes meanwhile.
func TestRetryAfterIsTrue(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		engine := newSimulatedEngine(table, 4, func(*Submission) int { return overloadAsked })
		stop := engine.start()
		defer stop()
		ask := func(timeout time.Duration) *simulatedClient {
			r := newRequest(nil)
			r.Timeout, r.Infer = timeout, &api.Request{Prompt: strings.Repeat("word", 48), MaxNewTokens: new(overloadAsked)}
			return table.ask(t, r, 0)
		}
		var clients []*simulatedClient
		for range 60 { // the first ones show how fast the engine is
			clients = append(clients, ask(time.Hour))
			time.Sleep(200 * time.Millisecond) // fake time
		}
		refused := ask(10 * time.Second)
		if !refused.refused {
			t.Fatal("it was admitted although 20 s of work were ahead")
		}
		wait := time.Duration(refused.err.RetryAfterSeconds()) * time.Second
		if wait < 2*time.Second {
			t.Errorf("Retry-After is %v", wait)
		}
		if again := ask(10 * time.Second); !again.refused {
			t.Error("it was admitted at once")
		}
		time.Sleep(wait) // fake time
		again := ask(10 * time.Second)
		if again.refused {
			t.Errorf("after %v it was refused again: %v", wait, again.err)
		}
		for _, c := range append(clients, again) {
			<-c.done
			if c.err != nil {
				t.Errorf("an admitted request failed: %v", c.err)
			}
		}
		table.wantMetric(2, "llm_admission_refusals_total", "reason=deadline")
	})
}

// linePlot is a plot of lines over the same places.
type linePlot struct {
	title, x, y string
	at          []float64
	lines       []plotLine
}

type plotLine struct {
	name, colour string
	values       []float64
}

// svg draws the plot; x goes from 0 to the last place, y from 0 to 1.1.
func (p linePlot) svg() string {
	const width, height, left, top, right, bottom = 640, 360, 60, 40, 20, 50
	px := func(v float64) float64 { return left + v/p.at[len(p.at)-1]*(width-left-right) }
	py := func(v float64) float64 { return height - bottom - v/1.1*(height-top-bottom) }
	var b strings.Builder
	text := func(x, y float64, more, s string) {
		fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"%.0f\" %s>%s</text>\n", x, y, more, s)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height)
	text(left, 22, `font-size="15"`, p.title)
	text((left+width-right)/2, height-12, `text-anchor="middle"`, p.x)
	text(16, (top+height-bottom)/2, fmt.Sprintf(`text-anchor="middle" transform="rotate(-90 16 %d)"`, (top+height-bottom)/2), p.y)
	for v := 0.0; v < 1.05; v += 0.2 {
		fmt.Fprintf(&b, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", left, py(v), width-right)
		text(left-8, py(v)+4, `text-anchor="end"`, fmt.Sprintf("%.1f", v))
	}
	for v := 0.0; v <= p.at[len(p.at)-1]; v++ {
		text(px(v), height-bottom+18, `text-anchor="middle"`, fmt.Sprintf("%.0f", v))
	}
	for i, l := range p.lines {
		var path strings.Builder
		for j, v := range l.values {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(j, 1)], px(p.at[j]), py(v))
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px(p.at[j]), py(v), l.colour)
		}
		fmt.Fprintf(&b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", path.String(), l.colour)
		text(width-right-10, height/2+float64(20*i), fmt.Sprintf(`text-anchor="end" fill="%s"`, l.colour), l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// Below the capacity a restart of the engine is a pause: of what waits meanwhile nothing is refused that can be
// answered in its time.
func TestRestartBelowCapacityRefusesNothing(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		newEngine := func() *simulatedEngine {
			return newSimulatedEngine(table, 8, func(*Submission) int { return overloadAsked })
		}
		engine := newEngine()
		stop := engine.start()
		pauses := rand.New(rand.NewPCG(5, 5))
		var clients []*simulatedClient
		for i := range 400 { // 1.6 a second of about two
			if i == 200 {
				stop()
				table.Lost(engine, Loss{Reason: "eof"})
			}
			if i == 208 { // five seconds later
				engine = newEngine()
				stop = engine.start()
			}
			time.Sleep(time.Duration(pauses.ExpFloat64() / 1.6 * float64(time.Second))) // fake time
			r := newRequest(nil)
			r.Timeout, r.Infer = time.Minute, &api.Request{Prompt: strings.Repeat("word", 48), MaxNewTokens: new(overloadAsked)}
			clients = append(clients, table.ask(t, r, 0))
		}
		for i, c := range clients {
			<-c.done
			if c.err != nil {
				t.Errorf("request %d: %v", i, c.err)
			}
		}
		stop()
		if table.metric("llm_requests_replayed_total") == 0 {
			t.Error("nothing was under way when the engine was lost")
		}
	})
}
