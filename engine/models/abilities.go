package models

import "regexp"

// Abilities are what requests may ask of a base.
type Abilities struct {
	ChatTemplate bool
	Tools        bool // the chat template has a form for tools of its own
	Reasoning    bool // the chat template has a form for reasoning
	EncoderOnly  bool // it has no next token, and only embeds or scores
	Embeddings   bool // TaskEmbed is possible
	Scores       bool // TaskScore is possible
}

// poolingRank is the library's number of a pooling that gives a score.
const poolingRank = 4

// abilities are those of a base as far as its header and model.yaml tell. A load may find that the library can't read
// the form of a chat template.
func (h *ggufHeader) abilities(template TemplateMode, pooling Pooling) Abilities {
	scores := h.Classifier && (pooling == PoolingRank || pooling == PoolingAuto && h.Pooling == poolingRank)
	a := Abilities{EncoderOnly: h.LooksAhead, Embeddings: !scores, Scores: scores}
	if h.Template.there && template != TemplateOff {
		a.ChatTemplate, a.Tools, a.Reasoning = true, h.Template.tools, h.Template.reasoning
	}
	return a
}

// templateForm is what the text of a chat template tells, without running it.
type templateForm struct{ there, tools, reasoning bool }

// Of llama.cpp's 70 templates one shows tools and has no form for calls. Of four the library knows a form for reasoning
// by other signs.
var (
	showsTools      = regexp.MustCompile(`\btools\b`)
	writesReasoning = regexp.MustCompile(`\breasoning_content\b|</think>|\[THINK\]|<\|channel\|>`)
)

func templateFormOf(text string) templateForm {
	return templateForm{there: true, tools: showsTools.MatchString(text), reasoning: writesReasoning.MatchString(text)}
}
