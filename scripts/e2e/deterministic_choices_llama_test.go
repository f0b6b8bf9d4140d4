//go:build llama

package e2e

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
)

// TestSameChatSameChoices: with DETERMINISTIC=true each choice of a chat with a seed is the same alone and among 32
// chats, token for token and in its log-probabilities.
func TestSameChatSameChoices(t *testing.T) {
	s := startServer(t, "DETERMINISTIC=true", "DEVICE=cpu")
	s.client.Timeout = killWait
	subjects := []string{"What is the capital of France?", "Tell me a story about a fox.", sharedPrefix + "Hello!", sharedPrefix + "What is gold?"}
	bodies := make([]map[string]any, 32)
	for i := range bodies {
		bodies[i] = chatOf(subjects[i%len(subjects)], "n", 2, "seed", 100+i, "temperature", 1, "max_tokens", 8+i, "logprobs", true, "top_logprobs", 2)
	}
	ask := func(i int) string {
		reply, err := s.reply("/v1/chat/completions", bodies[i])
		if err != nil {
			t.Error(err)
			return ""
		}
		choices, err := json.Marshal(reply["choices"])
		if err != nil {
			t.Error(err)
		}
		return string(choices)
	}
	alone := make([]string, len(bodies))
	different := map[string]bool{}
	for i := range bodies {
		alone[i] = ask(i)
		different[fmt.Sprint(alone[i])] = true
	}
	if len(different) < len(bodies)/2 {
		t.Errorf("only %d of %d answers differ", len(different), len(bodies))
	}
	var clients sync.WaitGroup
	for i := range bodies {
		clients.Go(func() {
			if got := ask(i); got != alone[i] {
				t.Errorf("%v among others:\n  now   %s\n  alone %s", bodies[i]["messages"], got, alone[i])
			}
		})
	}
	clients.Wait()
	checkInvariants(t, s.waitIdle())
}
