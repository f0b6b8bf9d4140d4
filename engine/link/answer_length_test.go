package link

import (
	"errors"
	"testing"

	"tandem/engine/models"
)

func TestTokensFor(t *testing.T) {
	ten := 10
	for name, test := range map[string]struct {
		given, prompt int
		fit           bool
		model         models.Defaults
		want          int
		param         string
	}{
		"default":              {0, 10, false, models.Defaults{}, 256, ""},
		"default cut":          {0, 400, false, models.Defaults{}, 112, ""},
		"model's default":      {0, 10, false, models.Defaults{MaxNewTokens: &ten}, 10, ""},
		"given":                {7, 10, false, models.Defaults{MaxNewTokens: &ten}, 7, ""},
		"given and cut":        {500, 100, false, models.Defaults{}, 412, ""},
		"as large as context":  {512, 1, false, models.Defaults{}, 511, ""},
		"larger than context":  {513, 1, false, models.Defaults{}, 0, "max_new_tokens"},
		"no room":              {1, 512, false, models.Defaults{}, 0, "prompt"},
		"prompt over context":  {1, 600, false, models.Defaults{}, 0, "prompt"},
		"one token of room":    {5, 511, false, models.Defaults{}, 1, ""},
		"negative can't occur": {0, 0, false, models.Defaults{}, 256, ""},
		"fit, nothing given":   {0, 100, true, models.Defaults{}, 412, ""},
		"fit, model's default": {0, 100, true, models.Defaults{MaxNewTokens: &ten}, 10, ""},
		"fit, given":           {7, 100, true, models.Defaults{}, 7, ""},
		"fit, over context":    {1 << 20, 100, true, models.Defaults{}, 412, ""},
		"fit, no room":         {1, 512, true, models.Defaults{}, 0, "prompt"},
	} {
		got, err := maxAnswerTokens(test.given, test.fit, &test.model, test.prompt, 512)
		tight, _ := errors.AsType[*contextLengthError](err)
		if got != test.want || (test.param != "") != (tight != nil) || tight != nil && tight.param != test.param {
			t.Errorf("%s: got %d (%v), want %d %q", name, got, err, test.want, test.param)
		}
	}
}
