package mock

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"tandem/engine/models"
)

// split renders a request and parses the answer, the text of n tokens at a time.
func split(t *testing.T, in models.Input, n int) string {
	t.Helper()
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	in.SplitOutput = true
	prompt, err := base.Render(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	p, err := base.NewParser(prompt.Parser)
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		return "content only: " + string(detokenise(prompt.Tokens))
	}
	defer p.Close()
	var list []models.Part
	for rest := prompt.Tokens; len(rest) > 0; rest = rest[min(n, len(rest)):] {
		list = append(list, p.Push(detokenise(rest[:min(n, len(rest))]))...)
	}
	list = append(list, p.Finish(false)...)
	return describe(list)
}

// describe writes parts as text; those of one kind are joined.
func describe(list []models.Part) string {
	names := map[models.PartKind]string{models.PartContent: "content", models.PartReasoning: "reasoning", models.PartArguments: "arguments"}
	var out strings.Builder
	last := models.PartKind(0)
	for _, p := range list {
		switch {
		case p.Kind == models.PartCall:
			fmt.Fprintf(&out, "|call %s", p.Name)
		case p.Kind == last:
			out.Write(p.Text)
		default:
			fmt.Fprintf(&out, "|%s %s", names[p.Kind], p.Text)
		}
		last = p.Kind
	}
	return out.String()
}

func TestAnswersHaveToolCallsAndReasoning(t *testing.T) {
	tools := []models.Tool{{Name: "get_weather"}, {Name: "other"}}
	user := func(text string) []models.Message { return []models.Message{{Role: "user", Content: text}} }
	for name, test := range map[string]struct {
		in   models.Input
		want string
	}{
		"content":       {models.Input{Prompt: "Hello"}, "content only: Hello"},
		"reasoning":     {models.Input{Prompt: "think why\nHello"}, "|reasoning why|content Hello"},
		"only thinking": {models.Input{Prompt: "think why"}, "|reasoning why|content why"},
		"call":          {models.Input{Messages: user(`call get_weather {"city":"Paris"}`), Tools: tools}, `|call get_weather|arguments {"city":"Paris"}`},
		"thought, then call": {models.Input{Messages: user("think hm\ncall other"), Tools: tools, ToolChoice: models.ToolChoice{Required: true}},
			`|reasoning hm|call other|arguments {}`},
		"one call":     {models.Input{Messages: user("call other 1\ncall get_weather 2"), Tools: tools}, `|call other|arguments 1`},
		"two calls":    {models.Input{Messages: user("call other 1\ncall get_weather 2"), Tools: tools, ParallelToolCalls: true}, `|call other|arguments 1|call get_weather|arguments 2`},
		"no such tool": {models.Input{Messages: user("call me 1"), Tools: tools}, "content only: call me 1"},
		"none":         {models.Input{Messages: user("call other 1"), Tools: tools, ToolChoice: models.ToolChoice{None: true}}, "content only: call other 1"},
		"required":     {models.Input{Prompt: "Hello", Tools: tools, ToolChoice: models.ToolChoice{Required: true}}, `|call get_weather|arguments {}`},
		"named":        {models.Input{Prompt: "call get_weather 1", Tools: tools, ToolChoice: models.ToolChoice{Required: true, Name: "other"}}, `|call other|arguments {}`},
		"result": {models.Input{Messages: append(user("call other 1"), models.Message{Role: "tool", Content: "17 degrees"}), Tools: tools},
			"content only: 17 degrees"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 3, 1000} {
				if got := split(t, test.in, n); got != test.want {
					t.Errorf("%d tokens at a time: %s, want %s", n, got, test.want)
				}
			}
		})
	}
}

func TestParserStatesOfOthersAreRefused(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	if _, err := base.NewParser([]byte("x")); err == nil {
		t.Error("no error")
	}
}
