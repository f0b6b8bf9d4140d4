//go:build llama

package llama

import (
	"cmp"
	"errors"
	"strings"
	"testing"

	"tandem/engine/models"
)

func TestBrokenTemplatesAreFoundAtTheLoad(t *testing.T) {
	b, _ := newBackend(t, nil)
	for name, c := range map[string]struct{ template, want string }{
		"doesn't parse":        {"{% for m in messages %}{{ m.content }", "Expected"},
		"unknown filter":       {"{% for m in messages %}{{ m.content | frobnicate }}{% endfor %}", "frobnicate"},
		"raises on everything": {"{{ raise_exception('only for robots') }}", "only for robots"},
		"makes nothing":        {"{% for m in messages %}{% endfor %}", "makes nothing"},
	} {
		path := demoWithTemplate(t, c.template, templateFamilies["ChatML"].specials)
		for _, mode := range []models.TemplateMode{models.TemplateAuto, models.TemplateOn} {
			_, err := b.LoadBase(t.Context(), models.BaseSpec{Name: "m", Path: path, Parallel: 1, Template: mode}, nil)
			le, _ := errors.AsType[*models.LoadError](err)
			if le == nil || le.Reason != models.ReasonBadFormat || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "template: off") {
				t.Errorf("%s: %v, want one with %q", name, err, c.want)
			}
		}
		off := loadFile(t, b, path, func(s *models.BaseSpec) { s.Template = models.TemplateOff })
		if len(render(t, off, "hello")) == 0 || off.Facts().ChatTemplate {
			t.Errorf("%s: switched off, it still disturbs", name)
		}
	}
}

// Where there is no template to know its options, they have no effect.
func TestOptionsWithoutATemplate(t *testing.T) {
	base, _ := loadDemo(t, func(s *models.BaseSpec) { s.Template = models.TemplateOff })
	in := models.Input{Messages: []models.Message{{Role: "user", Content: "hello"}}, SplitOutput: true}
	want := renderedText(t, base, in)
	in.TemplateOptions = []byte(`{"enable_thinking":false}`)
	if got := renderedText(t, base, in); got != want {
		t.Errorf("%q, without options %q", got, want)
	}
}

// renderedText is the text of a prompt's tokens.
func renderedText(t *testing.T, base *Base, in models.Input) string {
	t.Helper()
	p, err := base.Render(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, token := range p.Tokens {
		b.Write(base.vocab.piece(token))
	}
	return b.String()
}

func TestAnEmptySystemTextSwitchesTheTemplatesOwnOff(t *testing.T) {
	b, _ := newBackend(t, nil)
	const own = "{% if messages[0]['role'] != 'system' %}{{ 'SYS You are Bob.' }}{% endif %}{% for m in messages %}{{ '|' + m['role'] + ':' + m['content'] }}{% endfor %}"
	base := loadFile(t, b, demoWithTemplate(t, own, templateFamilies["ChatML"].specials), nil)
	absent, empty := models.Input{Prompt: "hello"}, models.Input{Prompt: "hello", HasSystem: true}
	if got := renderedText(t, base, absent); !strings.Contains(got, "You are Bob.") {
		t.Errorf("absent: %q", got)
	}
	if got := renderedText(t, base, empty); strings.Contains(got, "Bob") || !strings.Contains(got, "|system:|user:hello") {
		t.Errorf("empty: %q", got)
	}
	// Where there is nothing to switch off an empty text changes nothing.
	const none = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ '|' + m['role'] + ':' + m['content'] }}{% endfor %}"
	for name, path := range map[string]string{"no system role": demoWithTemplate(t, none, templateFamilies["ChatML"].specials), "no template": ""} {
		base := loadFile(t, b, cmp.Or(path, demoFile(t, "demo-q8_0.gguf")), func(s *models.BaseSpec) {
			if path == "" {
				s.Template = models.TemplateOff
			}
		})
		if a, e := renderedText(t, base, absent), renderedText(t, base, empty); a != e {
			t.Errorf("%s: %q and %q", name, a, e)
		}
	}
}

func TestTemplatesThatRefuseSomeInputWork(t *testing.T) {
	b, _ := newBackend(t, nil)
	const rest = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
	for name, c := range map[string]struct {
		template string
		in       models.Input
	}{
		"no system role": {"{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + rest,
			models.Input{Prompt: "hello"}},
		"no system role, but one is given": {"{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + rest,
			models.Input{Prompt: "hello", System: "be kind"}},
		"only with a system text": {"{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system text comes first') }}{% endif %}" + rest,
			models.Input{Prompt: "hello", System: "be kind"}},
	} {
		base := loadFile(t, b, demoWithTemplate(t, c.template, templateFamilies["ChatML"].specials), nil)
		if p, err := base.Render(t.Context(), c.in); err != nil || len(p.Tokens) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	base := loadFile(t, b, demoWithTemplate(t, "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system text comes first') }}{% endif %}"+rest, templateFamilies["ChatML"].specials), nil)
	if _, err := base.Render(t.Context(), models.Input{Prompt: "hello"}); !errors.Is(err, models.ErrMessages) || !strings.Contains(err.Error(), "a system text comes first") {
		t.Errorf("what it refuses: %v", err)
	}
}
