package link

import (
	"fmt"
	"strings"
	"testing"

	"tandem/schema"
	"tandem/schema/parts"
)

// splitAnswer is an answer that came as a part stream.
type splitAnswer struct {
	texts []string // of the tokens
	ends  []int
	done  decodedSummary
}

func (p *fakeProxy) awaitSplit(id uint64) (a splitAnswer) {
	p.t.Helper()
	p.awaitFrame("summary", func(f decodedFrame) bool {
		for _, t := range f.tokens {
			if t.key.id == id {
				a.texts, a.ends = append(a.texts, t.text), append(a.ends, t.end)
			}
		}
		for _, d := range f.done {
			if d.key.id == id {
				a.done = d
				return true
			}
		}
		return false
	})
	return a
}

// describe writes a part stream for people.
func describe(t *testing.T, stream string) string {
	t.Helper()
	var out strings.Builder
	for rest := []byte(stream); len(rest) > 0; {
		part, next, err := parts.Next(rest)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d%s%s ", part.Kind, part.Text, part.ID+part.Name)
		rest = next
	}
	return out.String()
}

func splitOutput(tools string) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error {
		r.SetSplitOutput(true)
		return r.SetTools([]byte(tools))
	}
}

const oneTool = `[{"type":"function","function":{"name":"f"}}]`

func TestAnswersComeAsPartStreams(t *testing.T) {
	for name, test := range map[string]struct {
		tools, want string
		thought     int
	}{
		"content only": {"", "1a 1b 1c 1d 1e ", 0},
		"parsed":       {oneTool, "2a 1c 3idf 4e 4… ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			e := newLinkTest(t, &fakeBackend{})
			p := e.acceptConnection()
			p.infer(1, "x", maxTokens(5), splitOutput(test.tools))
			a := p.awaitSplit(1)
			if got := describe(t, strings.Join(a.texts, "")); got != test.want || a.done.thought != test.thought {
				t.Errorf("got %s with %d tokens of reasoning, want %s with %d", got, a.done.thought, test.want, test.thought)
			}
			end := 0
			for i, text := range a.texts {
				if end += len(text); a.ends[i] != end {
					t.Errorf("token %d ends at %d, want %d", i, a.ends[i], end)
				}
			}
			e.awaitIdle()
		})
	}
}

// A replay has the same bytes at the same tokens, wherever the answer was cut.
func TestReplaysOfPartStreamsContinue(t *testing.T) {
	for name, tools := range map[string]string{"content only": "", "parsed": oneTool} {
		t.Run(name, func(t *testing.T) {
			e := newLinkTest(t, &fakeBackend{})
			p := e.acceptConnection()
			p.infer(1, "end 7", maxTokens(20), splitOutput(tools))
			accepted := p.awaitKind("accepted")
			whole := p.awaitSplit(1)
			for cut := 1; cut < len(whole.texts); cut++ {
				id := uint64(cut + 1)
				p.infer(id, "", maxTokens(20), splitOutput(tools), replayOf(accepted, cut))
				a := p.awaitSplit(id)
				if got, want := fmt.Sprint(a.texts, a.ends), fmt.Sprint(whole.texts[cut:], whole.ends[cut:]); got != want {
					t.Errorf("cut after %d tokens: %q, want %q", cut, got, want)
				}
				if a.done.thought != whole.done.thought {
					t.Errorf("cut after %d tokens: %d tokens of reasoning, want %d", cut, a.done.thought, whole.done.thought)
				}
			}
			e.awaitIdle()
		})
	}
}

// replayOf continues an accepted request after n letters.
func replayOf(accepted decodedFrame, n int) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error {
		rendered, err := r.NewRendered()
		if err != nil {
			return err
		}
		if err := rendered.SetParserState(accepted.state); err != nil {
			return err
		}
		prompt, err := rendered.NewPromptTokens(int32(len(accepted.prompt)))
		if err != nil {
			return err
		}
		for i, id := range accepted.prompt {
			prompt.Set(i, id)
		}
		generated, err := r.NewGenerated(int32(n))
		if err != nil {
			return err
		}
		for i := range n {
			generated.Set(i, 'a'+int32(i))
		}
		r.SetReplay(schema.ReplayMode_prefill)
		return r.SetExpectRevision(accepted.bytes)
	}
}

// A cancelled answer and a lost connection end a parsed request like any other.
func TestPartStreamsEndEarly(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	p.infer(1, "x", maxTokens(400), splitOutput(oneTool))
	p.awaitKind("accepted")
	p.cancel(1)
	if a := p.awaitSplit(1); a.done.reason != schema.FinishReason_cancelled && a.done.reason != schema.FinishReason_length {
		t.Errorf("ended with %v", a.done.reason)
	}
	p.infer(2, "x", maxTokens(400), splitOutput(oneTool))
	p.awaitKind("accepted")
	p.mayDisconnect = true
	p.close()
	e.awaitIdle()
}
