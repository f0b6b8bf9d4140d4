//go:build llama

package llama

import (
	"errors"
	"strings"
	"testing"

	"tandem/engine/models"
)

func TestBrokenTemplatesAreFoundAtTheLoad(t *testing.T) {
	b, _ := newBackend(t, nil)
	for name, c := range map[string]struct{ template, want string }{
		"doesn't parse":        {"{% for m in messages %}{{ m.content }", "chat template is broken"},
		"unknown filter":       {"{% for m in messages %}{{ m.content | frobnicate }}{% endfor %}", "frobnicate"},
		"raises on everything": {"{{ raise_exception('only for robots') }}", "only for robots"},
		"makes nothing":        {"{% for m in messages %}{% endfor %}", "makes nothing"},
	} {
		path := dress(t, c.template, families["ChatML"].specials)
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
		base := loadFile(t, b, dress(t, c.template, families["ChatML"].specials), nil)
		if p, err := base.Render(t.Context(), c.in); err != nil || len(p.Tokens) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	base := loadFile(t, b, dress(t, "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system text comes first') }}{% endif %}"+rest, families["ChatML"].specials), nil)
	if _, err := base.Render(t.Context(), models.Input{Prompt: "hello"}); !errors.Is(err, models.ErrMessages) || !strings.Contains(err.Error(), "a system text comes first") {
		t.Errorf("what it refuses: %v", err)
	}
}
