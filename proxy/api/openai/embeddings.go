package openai

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// embeddingBody is the body of POST /v1/embeddings. Fields that aren't here are ignored.
type embeddingBody struct {
	Model          string           `json:"model"`
	Input          embeddingInput   `json:"input"`
	EncodingFormat *string          `json:"encoding_format"`
	Dimensions     *api.WholeNumber `json:"dimensions"`

	Unknown jsontext.Value `json:",embed"`
}

// embeddingInput is a text, a list of texts, a list of token ids, or a list of such lists.
type embeddingInput struct{ inputs []api.Input }

// UnmarshalJSONFrom reads each form, and of a list no more entries than are allowed.
func (p *embeddingInput) UnmarshalJSONFrom(dec *jsontext.Decoder) (err error) {
	p.inputs, err = readInputs(dec)
	return err
}

// embeddingExtra is what the encoder needs besides the request.
type embeddingExtra struct{ base64 bool }

func (b *embeddingBody) request(limits api.Limits) (*api.Request, *api.Error) {
	if !isModelLength(b.Model) {
		return nil, invalidField("model")
	}
	if err := checkInputs("input", b.Input.inputs, limits.MaxPromptBytes()); err != nil {
		return nil, err
	}
	r := &api.Request{Task: api.TaskEmbed, Inputs: b.Input.inputs, Raw: true, UnknownFields: api.UnknownFields(b.Unknown, ignoredFields)}
	r.Model, r.Version, _ = api.SplitModelID(b.Model)
	extra := embeddingExtra{}
	if b.EncodingFormat != nil {
		switch *b.EncodingFormat {
		case "float":
		case "base64":
			extra.base64 = true
		default:
			return nil, invalidField("encoding_format")
		}
	}
	if b.Dimensions != nil {
		if *b.Dimensions < 1 || *b.Dimensions > math.MaxInt32 {
			return nil, invalidField("dimensions")
		}
		r.Dimensions = int(*b.Dimensions)
	}
	r.Extra = extra
	return r, nil
}

// embeddingEncoder implements api.Encoder for embeddings, which have no streams.
type embeddingEncoder struct {
	wholeOnly
	envelope
	request *api.Request
}

func (e *embeddingEncoder) AppendReply(dst []byte, r *api.Reply) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	extra, _ := e.request.Extra.(embeddingExtra)
	for i := range r.Results {
		dst = append(api.AppendComma(dst, i), `{"object":"embedding","index":`...)
		dst = append(strconv.AppendInt(dst, int64(i), 10), `,"embedding":`...)
		numbers := shorten(r.Results[i].Embedding, e.request.Dimensions)
		if extra.base64 {
			dst = appendBase64(dst, numbers)
		} else {
			dst = appendNumbers(dst, numbers)
		}
		dst = append(dst, '}')
	}
	dst = api.AppendMember(dst, `],"model":`, e.model)
	dst = api.AppendInt(dst, `,"usage":{"prompt_tokens":`, r.Usage.PromptTokens)
	return append(api.AppendInt(dst, `,"total_tokens":`, r.Usage.PromptTokens), "}}"...)
}

// shorten leaves the first numbers of an embedding and gives them length 1 again, as models need that were trained so
// that their first numbers say most (Kusupati et al., Matryoshka Representation Learning, 2022). 0: all of them.
func shorten(v []float32, dimensions int) []float32 {
	if dimensions == 0 || dimensions >= len(v) {
		return v
	}
	sum := 0.0
	for _, x := range v[:dimensions] {
		sum += float64(x) * float64(x)
	}
	out := make([]float32, dimensions)
	if sum > 0 {
		scale := 1 / math.Sqrt(sum)
		for i := range out {
			out[i] = float32(float64(v[i]) * scale)
		}
	}
	return out
}

func appendNumbers(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		dst = strconv.AppendFloat(api.AppendComma(dst, i), float64(x), 'g', -1, 32)
	}
	return append(dst, ']')
}

// appendBase64 appends 32-bit numbers, lowest byte first, as OpenAI's clients read them.
func appendBase64(dst []byte, v []float32) []byte {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), raw), '"')
}

// wholeOnly are the methods of encoders whose endpoints have no streams. Their decoders never ask for one.
type wholeOnly struct{}

func (wholeOnly) AppendStart(dst []byte) []byte                           { return dst }
func (wholeOnly) AppendDelta(dst []byte, _ *api.Delta) []byte             { return dst }
func (wholeOnly) AppendChoiceEnd(dst []byte, _ int, _ *api.Result) []byte { return dst }
func (wholeOnly) AppendEnd(dst []byte, _ *api.Reply) []byte               { return dst }
func (wholeOnly) AppendErrorEvent(dst []byte, _ *api.Error) []byte        { return dst }
