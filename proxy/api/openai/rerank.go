package openai

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// rerankBody is the body of POST /v1/rerank, which isn't OpenAI's: the form is that of Jina and Cohere. Fields that
// aren't here are ignored.
type rerankBody struct {
	Model           string           `json:"model"`
	Query           string           `json:"query"`
	Documents       documentList     `json:"documents"`
	TopN            *api.WholeNumber `json:"top_n"`
	ReturnDocuments bool             `json:"return_documents"`
	RawScores       bool             `json:"raw_scores"` // as the model gives them, not between 0 and 1

	Unknown jsontext.Value `json:",embed"`
}

// documentList is a list of texts, or of objects with a text.
type documentList []string

var errDocuments = errors.New("not a list of texts")

// UnmarshalJSONFrom reads at most api.MaxInputs documents.
func (l *documentList) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '[':
	default:
		return errDocuments
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if len(*l) == api.MaxInputs {
			return errDocuments
		}
		text, err := readDocument(dec)
		if err != nil {
			return err
		}
		*l = append(*l, text)
	}
	_, err := dec.ReadToken()
	return err
}

func readDocument(dec *jsontext.Decoder) (string, error) {
	switch dec.PeekKind() {
	case '"':
		token, err := dec.ReadToken()
		return token.String(), err
	case '{':
		var d struct {
			Text *string `json:"text"`
		}
		if err := json.UnmarshalDecode(dec, &d); err != nil {
			return "", err
		}
		if d.Text != nil {
			return *d.Text, nil
		}
	}
	return "", errDocuments
}

// rerankExtra is what the encoder needs besides the request.
type rerankExtra struct {
	topN            int
	returnDocuments bool
	rawScores       bool
}

func (b *rerankBody) request(limits api.Limits) (*api.Request, *api.Error) {
	switch {
	case !isModelLength(b.Model):
		return nil, invalidField("model")
	case b.Query == "":
		return nil, api.Invalid("query", "query is required and must be %s", requirements["query"])
	case len(b.Documents) == 0:
		return nil, api.Invalid("documents", "documents is required and must be %s", requirements["documents"])
	case b.TopN != nil && *b.TopN < 1:
		return nil, invalidField("top_n")
	}
	r := &api.Request{Task: api.TaskScore, Raw: true, UnknownFields: api.UnknownFields(b.Unknown, ignoredFields)}
	r.Model, r.Version, _ = api.SplitModelID(b.Model)
	bytes := len(b.Query)
	for _, text := range b.Documents {
		bytes += len(text)
		r.Inputs = append(r.Inputs, api.Input{Query: b.Query, Document: text})
	}
	if limit := limits.MaxPromptBytes(); bytes > limit {
		return nil, api.Invalid("documents", "query and documents have %d bytes together, more than the limit of %d; send fewer", bytes, limit)
	}
	extra := rerankExtra{topN: len(b.Documents), returnDocuments: b.ReturnDocuments, rawScores: b.RawScores}
	if b.TopN != nil {
		extra.topN = int(min(*b.TopN, api.WholeNumber(extra.topN)))
	}
	r.Extra = extra
	return r, nil
}

// rerankEncoder implements api.Encoder for scores, which have no streams.
type rerankEncoder struct {
	wholeOnly
	envelope
	request *api.Request
}

type scored struct {
	index int
	score float64
}

func (e *rerankEncoder) AppendReply(dst []byte, r *api.Reply) []byte {
	extra, _ := e.request.Extra.(rerankExtra)
	dst = append(api.AppendMember(dst, `{"object":"list","model":`, e.model), `,"results":[`...)
	for i, s := range ranked(r.Results, extra.rawScores)[:extra.topN] {
		dst = strconv.AppendInt(append(api.AppendComma(dst, i), `{"index":`...), int64(s.index), 10)
		dst = strconv.AppendFloat(append(dst, `,"relevance_score":`...), s.score, 'g', -1, 32)
		if extra.returnDocuments {
			dst = append(api.AppendMember(dst, `,"document":{"text":`, e.request.Inputs[s.index].Document), '}')
		}
		dst = append(dst, '}')
	}
	dst = api.AppendInt(dst, `],"usage":{"prompt_tokens":`, r.Usage.PromptTokens)
	return append(api.AppendInt(dst, `,"total_tokens":`, r.Usage.PromptTokens), "}}"...)
}

// ranked orders the documents by their scores, the best first; equal ones as they came.
func ranked(results []api.Result, raw bool) []scored {
	list := make([]scored, len(results))
	for i := range results {
		list[i].index = i
		if len(results[i].Embedding) > 0 {
			list[i].score = float64(results[i].Embedding[0])
		}
		if !raw {
			list[i].score = 1 / (1 + math.Exp(-list[i].score))
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	return list
}
