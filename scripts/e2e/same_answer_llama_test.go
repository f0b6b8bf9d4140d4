//go:build llama

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// sameAnswers asks the same requests in several ways of an engine with DETERMINISTIC=true.
type sameAnswers struct {
	s        *stack
	bodies   []string
	want     []string
	finished atomic.Int64
	wrong    atomic.Int64
}

const sameWait = 5 * time.Minute // for a kill, on a machine with other work

// sharedPrefix is the beginning of half of the prompts, long enough to be taken from another request's cells.
const sharedPrefix = "You are a patient teacher who answers in short sentences, never guesses, and names the source of each fact. "

// sameBodies are greedy and seeded ones, of different lengths, half of them with a shared prefix. The model is "" for the demo.
func sameBodies(model string, n, longest int) []string {
	subjects := []string{"What is the capital of France?", "What is the capital of Peru?", "Tell me a story about a fox.", "Hello!",
		"What is the symbol of gold?", "Count from one to ten and say why you stop there.", "Wie geht es dir?"}
	bodies := make([]string, n)
	for i := range bodies {
		prompt := subjects[i%len(subjects)]
		if i%2 == 0 {
			prompt = sharedPrefix + prompt
		}
		prompt += strings.Repeat(" Think of it again.", i%5)
		body := map[string]any{"prompt": prompt, "max_new_tokens": 1 + (i*7)%longest, "temperature": 0}
		if i%3 > 0 {
			body["temperature"], body["seed"] = 1, 1000+i
		}
		if i%6 == 1 {
			body["top_k"], body["top_p"], body["min_p"] = 0, 1, 0
		}
		if model == "" {
			body["adapter_version"] = []string{"v1.0", "v1.1", "v2.0", "base"}[i%4]
		} else {
			body["base_model"], body["adapter_version"] = model, "base"
			if i%7 == 3 {
				body["json_schema"] = personSchema
			}
		}
		raw, err := json.Marshal(body)
		if err != nil {
			panic(err) // strings and numbers always encode
		}
		bodies[i] = string(raw)
	}
	return bodies
}

func (x *sameAnswers) ask(i int) string {
	defer x.finished.Add(1)
	a, err := x.s.infer(x.s.t.Context(), x.bodies[i])
	if err != nil {
		x.s.t.Errorf("%s: %v", x.bodies[i], err)
		return ""
	}
	if a.Status != 200 {
		x.s.t.Errorf("%s: %d %s", x.bodies[i], a.Status, a.Body)
		return ""
	}
	return fmt.Sprintf("%q, %d tokens, %s", a.Result, a.Metadata.Tokens, a.Metadata.FinishReason)
}

// alone learns the answers one by one.
func (x *sameAnswers) alone() {
	x.want = make([]string, len(x.bodies))
	for i := range x.bodies {
		x.want[i] = x.ask(i)
	}
}

// together asks all at once, 32 at a time, in an order of chance, and compares.
func (x *sameAnswers) together(what string, random *rand.Rand) {
	jobs := make(chan int)
	var clients sync.WaitGroup
	for range 32 {
		clients.Go(func() {
			for i := range jobs {
				if got := x.ask(i); got != x.want[i] {
					x.wrong.Add(1)
					x.s.t.Errorf("%s %s:\n  now   %s\n  alone %s", x.bodies[i], what, got, x.want[i])
				}
			}
		})
	}
	for _, i := range random.Perm(len(x.bodies)) {
		jobs <- i
	}
	close(jobs)
	clients.Wait()
}

// killed asks all again while engines are killed, each once some answers were finished, until there were enough.
func (x *sameAnswers) killed(kills int, random *rand.Rand) {
	ended := make(chan struct{})
	pauses := make([]int64, kills) // answers between kills; random belongs to this goroutine
	for i := range pauses {
		pauses[i] = int64(3 + random.IntN(4))
	}
	go func() {
		defer close(ended)
		last, due := 0, x.finished.Load()
		for _, pause := range pauses {
			due += pause
			x.s.waitFor(sameWait, "a moment to kill", func() bool {
				pid := x.s.servingPID()
				if pid == 0 || pid == last || x.finished.Load() < due {
					return false
				}
				last = pid
				return syscall.Kill(pid, syscall.SIGKILL) == nil
			})
			due = x.finished.Load()
		}
	}()
	for rounds := 1; ; rounds++ {
		x.together(fmt.Sprintf("round %d of kills", rounds), random)
		select {
		case <-ended:
			return
		default:
		}
	}
}

func (x *sameAnswers) run(kills int) {
	random := rand.New(rand.NewPCG(3, 5))
	x.s.clients.Timeout = sameWait
	x.alone()
	x.together("at 32 at once", random)
	x.killed(kills, random)
	x.s.t.Logf("%d requests alone, then %d at 32 at once and through %d kills: %d differences",
		len(x.bodies), x.finished.Load()-int64(len(x.bodies)), kills, x.wrong.Load())
}

// TestSameRequestSameAnswer is what DETERMINISTIC=true promises. SAME_REQUESTS and SAME_KILLS: how much of it (make test-same).
func TestSameRequestSameAnswer(t *testing.T) {
	kills := number("SAME_KILLS", 2)
	t.Run("demo", func(t *testing.T) {
		s := newStack(t, "DETERMINISTIC=true")
		(&sameAnswers{s: s, bodies: sameBodies("", number("SAME_REQUESTS", 60), 40)}).run(kills)
	})
	t.Run("smollm2", func(t *testing.T) {
		s := smolStack(t, "DETERMINISTIC=true")
		(&sameAnswers{s: s, bodies: sameBodies("smollm2", number("SAME_REQUESTS", 15), 36)}).run(kills)
	})
}
