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

// determinismTest sends the same requests in several ways to an engine with DETERMINISTIC=true.
type determinismTest struct {
	server       *testServer
	bodies       []string
	aloneAnswers []string
	finished     atomic.Int64
	differences  atomic.Int64
}

const killWait = 5 * time.Minute // for a kill, on a busy machine

// sharedPrefix is the beginning of half of the prompts, long enough to be taken from another request's cells.
const sharedPrefix = "You are a patient teacher who answers in short sentences, never guesses, and names the source of each fact. "

// determinismRequests returns the bodies of greedy and seeded requests of different lengths, half of them with a shared
// prefix. The model is "" for the demo.
func determinismRequests(model string, n, longest int) []string {
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

func (x *determinismTest) ask(i int) string {
	defer x.finished.Add(1)
	a, err := x.server.infer(x.server.t.Context(), x.bodies[i])
	if err != nil {
		x.server.t.Errorf("%s: %v", x.bodies[i], err)
		return ""
	}
	if a.Status != 200 {
		x.server.t.Errorf("%s: %d %s", x.bodies[i], a.Status, a.Body)
		return ""
	}
	return fmt.Sprintf("%q, %d tokens, %s", a.Result, a.Metadata.Tokens, a.Metadata.FinishReason)
}

// askAlone records the answers one by one.
func (x *determinismTest) askAlone() {
	x.aloneAnswers = make([]string, len(x.bodies))
	for i := range x.bodies {
		x.aloneAnswers[i] = x.ask(i)
	}
}

// compareConcurrent sends all requests in random order, 32 at a time, and compares their answers with those given
// alone.
func (x *determinismTest) compareConcurrent(what string, random *rand.Rand) {
	jobs := make(chan int)
	var clients sync.WaitGroup
	for range 32 {
		clients.Go(func() {
			for i := range jobs {
				if got := x.ask(i); got != x.aloneAnswers[i] {
					x.differences.Add(1)
					x.server.t.Errorf("%s %s:\n  now   %s\n  alone %s", x.bodies[i], what, got, x.aloneAnswers[i])
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

// compareUnderKills does the same again and again while engines are killed, each after some answers were finished,
// until there were enough kills.
func (x *determinismTest) compareUnderKills(kills int, random *rand.Rand) {
	ended := make(chan struct{})
	answersBetweenKills := make([]int64, kills) // in answers; drawn here, as random belongs to this goroutine
	for i := range answersBetweenKills {
		answersBetweenKills[i] = int64(3 + random.IntN(4))
	}
	go func() {
		defer close(ended)
		lastPID, due := 0, x.finished.Load()
		for _, answers := range answersBetweenKills {
			due += answers
			x.server.waitFor(killWait, "a moment to kill", func() bool {
				pid := x.server.enginePID()
				if pid == 0 || pid == lastPID || x.finished.Load() < due {
					return false
				}
				lastPID = pid
				return syscall.Kill(pid, syscall.SIGKILL) == nil
			})
			due = x.finished.Load()
		}
	}()
	for rounds := 1; ; rounds++ {
		x.compareConcurrent(fmt.Sprintf("round %d of kills", rounds), random)
		select {
		case <-ended:
			return
		default:
		}
	}
}

func (x *determinismTest) run(kills int) {
	random := rand.New(rand.NewPCG(3, 5))
	x.server.client.Timeout = killWait
	x.askAlone()
	x.compareConcurrent("at 32 at once", random)
	x.compareUnderKills(kills, random)
	x.server.t.Logf("%d requests alone, then %d at 32 at once and through %d kills: %d differences",
		len(x.bodies), x.finished.Load()-int64(len(x.bodies)), kills, x.differences.Load())
}

// TestSameRequestSameAnswer checks what DETERMINISTIC=true promises. SAME_REQUESTS and SAME_KILLS say how much of it
// (make test-same).
func TestSameRequestSameAnswer(t *testing.T) {
	kills := envNumber("SAME_KILLS", 2)
	t.Run("demo", func(t *testing.T) {
		s := startServer(t, "DETERMINISTIC=true", "DEVICE=cpu")
		(&determinismTest{server: s, bodies: determinismRequests("", envNumber("SAME_REQUESTS", 60), 40)}).run(kills)
	})
	t.Run("smollm2", func(t *testing.T) {
		s := startSmolLM2Server(t, "DETERMINISTIC=true", "DEVICE=cpu")
		(&determinismTest{server: s, bodies: determinismRequests("smollm2", envNumber("SAME_REQUESTS", 15), 36)}).run(kills)
	})
}
