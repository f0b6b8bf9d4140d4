package batch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// ownerLoad is clients of one owner, each of which sends its next request when the last is answered, after a pause.
type ownerLoad struct {
	owner   string
	clients int
	pause   time.Duration
	atTimes float64 // requests a second at random times (Poisson), instead of all this
	begins  time.Duration
}

// smolLM2 is what steps of SmolLM2-135M (Q4_1) were measured to take on two cores of a Xeon, by their number of tokens.
// The second one costs as much as the next fifteen: one token alone has other kernels.
type smolLM2 struct{}

func (smolLM2) takes(w stepWork) time.Duration {
	measured := []struct {
		tokens int
		ms     float64
	}{{0, 0}, {1, 4.5}, {2, 8.1}, {8, 11.7}, {16, 14}, {28, 25}, {49, 47}, {512, 530}}
	n, ms := w.decodes+w.prompts, 0.0
	for i := 1; i < len(measured); i++ {
		from, to := measured[i-1], measured[i]
		if part := float64(n-from.tokens) / float64(to.tokens-from.tokens); n >= from.tokens {
			ms = from.ms + part*(to.ms-from.ms)
		}
	}
	return time.Duration(ms*float64(time.Millisecond)) + time.Duration(w.cells)*500*time.Nanosecond
}

const (
	sharedFor    = time.Minute
	sharedAnswer = 32 // tokens
	// keptFreeSlots is what the proxy keeps of the slots for an owner that has no request now.
	keptFreeSlots = 2
)

// ownerFigures is what an owner's clients saw.
type ownerFigures struct {
	answers, gaps []time.Duration
	tokens        int
}

func (f *ownerFigures) perSecond() float64 { return float64(f.tokens) / sharedFor.Seconds() }

// ownerClient is one of an owner's clients.
type ownerClient struct {
	*ownerLoad
	sentAt time.Duration // of its request; later than now: it makes a pause
	seq    *sequence     // nil: it has none in a slot
}

// ownersLoadTest runs a scheduler under the loads of several owners.
type ownersLoadTest struct {
	*loadTest
	clients []*ownerClient
	figures map[string]*ownerFigures
}

func serveOwners(t *testing.T, d device, loads ...ownerLoad) map[string]*ownerFigures {
	o := &ownersLoadTest{newLoadTest(t, d), nil, make(map[string]*ownerFigures)}
	for i := range loads {
		o.figures[loads[i].owner] = &ownerFigures{}
		for range loads[i].clients {
			o.clients = append(o.clients, &ownerClient{ownerLoad: &loads[i], sentAt: loads[i].begins})
		}
		random, at := rand.New(rand.NewPCG(1, 2)), loads[i].begins
		for loads[i].atTimes > 0 && at < sharedFor { // a client for each
			at += time.Duration(random.ExpFloat64() / loads[i].atTimes * float64(time.Second))
			o.clients = append(o.clients, &ownerClient{ownerLoad: &loads[i], sentAt: at})
		}
	}
	for o.now < sharedFor {
		if o.letIn(); o.inSlots("") == 0 {
			o.now += time.Millisecond
			continue
		}
		o.step()
		o.takeEnded()
	}
	return o.figures
}

// inSlots counts the sequences of an owner; "": of all.
func (o *ownersLoadTest) inSlots(owner string) (n int) {
	for _, c := range o.clients {
		if c.seq != nil && (owner == "" || c.owner == owner) {
			n++
		}
	}
	return n
}

// letIn lets in no more requests than there are slots, as the proxy does, those of the owner with fewer of them first.
func (o *ownersLoadTest) letIn() {
	slices.SortStableFunc(o.clients, func(a, b *ownerClient) int { return o.inSlots(a.owner) - o.inSlots(b.owner) })
	for _, c := range o.clients {
		room := len(o.scheduler.slots) - o.inSlots("")
		for owner := range o.figures {
			if owner != c.owner && o.inSlots(owner) == 0 && o.inSlots(c.owner) > 0 {
				room -= keptFreeSlots
			}
		}
		if c.seq == nil && c.sentAt <= o.now && room > 0 {
			c.seq = o.submit(c.owner, nil, shortPrompt, sharedAnswer)
			c.seq.submittedAt = c.sentAt
		}
	}
}

// takeEnded notes what ended, and begins the pauses of its clients.
func (o *ownersLoadTest) takeEnded() {
	for _, c := range o.clients {
		if c.seq == nil || c.seq.stage != stageEnded {
			continue
		}
		f, times := o.figures[c.owner], o.tokens[c.seq]
		f.answers = append(f.answers, o.now-c.sentAt)
		f.tokens += len(times)
		for i := range times[1:] {
			f.gaps = append(f.gaps, times[i+1]-times[i])
		}
		delete(o.tokens, c.seq)
		c.seq, c.sentAt = nil, o.now+c.pause
		if c.atTimes > 0 {
			c.sentAt = 2 * sharedFor // never again
		}
	}
}

// An owner with few clients beside one with forty: where sequences cost time, it has the speed that a half of the
// device would give it, or nearly all of it while it uses little; where they cost next to nothing, nobody gives way.
func TestSmallOwnerBesideLargeOne(t *testing.T) {
	const soon = 5 * time.Second // when the large one's clients no longer end together
	gpu := simulatedDevices["GPU"]
	for name, tc := range map[string]struct {
		device    device
		small     ownerLoad
		p95, gap  float64 // at most, by those of the small one alone
		largeRate float64 // tokens/s of the large one by those that it has alone, at least
	}{
		"four clients":                    {xeon, ownerLoad{clients: 4}, 2.1, 3.1, 0.45},
		"one client":                      {xeon, ownerLoad{clients: 1}, 2.2, 2.1, 0.45},
		"one client with pauses":          {xeon, ownerLoad{clients: 1, pause: 2 * time.Second}, 1.9, 1.7, 0.82},
		"as much as there is":             {xeon, ownerLoad{clients: 16}, 2.9, 2.3, 0.5}, // waits for slots
		"SmolLM2: four clients":           {smolLM2{}, ownerLoad{clients: 4}, 1.8, 2.2, 0.5},
		"SmolLM2: requests now and then":  {smolLM2{}, ownerLoad{atTimes: 0.5}, 1.8, 1.3, 0.82},
		"SmolLM2: one client with pauses": {smolLM2{}, ownerLoad{clients: 1, pause: 2 * time.Second}, 1.8, 1.3, 0.85},
		"GPU: four clients":               {gpu, ownerLoad{clients: 4}, 1.3, 1.2, 0.85},
		"GPU: client with pauses":         {gpu, ownerLoad{clients: 1, pause: 2 * time.Second}, 1.4, 1.2, 0.9},
	} {
		t.Run(name, func(t *testing.T) {
			tc.small.owner, tc.small.begins = "small", soon
			large := ownerLoad{owner: "large", clients: 40}
			alone, without := serveOwners(t, tc.device, tc.small)["small"], serveOwners(t, tc.device, large)["large"]
			both := serveOwners(t, tc.device, tc.small, large)
			by := func(list func(*ownerFigures) []time.Duration, percent int) float64 {
				return float64(nearestRank(list(both["small"]), percent)) / float64(nearestRank(list(alone), percent))
			}
			p95 := by(func(f *ownerFigures) []time.Duration { return f.answers }, 95)
			gap := by(func(f *ownerFigures) []time.Duration { return f.gaps }, 50)
			rate := both["large"].perSecond() / without.perSecond()
			figures := fmt.Sprintf("p95 %.2f and gap %.2f of alone; tokens/s %.0f, alone %.0f, of the other owner %.0f, %.2f of alone",
				p95, gap, both["small"].perSecond(), alone.perSecond(), both["large"].perSecond(), rate)
			t.Log(figures)
			if p95 > tc.p95 || gap > tc.gap || rate < tc.largeRate {
				t.Error(figures)
			}
		})
	}
}
