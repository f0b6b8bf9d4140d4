package openai

import (
	"strconv"
	"time"

	"tandem/proxy/api"
)

// AppendModels appends the body of GET /v1/models. created is the same for all: nobody knows when a model was made.
func AppendModels(dst []byte, models []api.Model, created time.Time) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	for i, l := range api.ListModels(models) {
		dst = appendEntry(api.AppendComma(dst, i), l, created)
	}
	return append(dst, "]}"...)
}

// AppendModel appends the body of GET /v1/models/{id}. The error is a 404.
func AppendModel(dst []byte, models []api.Model, id string, created time.Time) ([]byte, *api.Error) {
	l, err := api.FindListed(models, id)
	if err != nil {
		return dst, err
	}
	return appendEntry(dst, l, created), nil
}

func appendEntry(dst []byte, l api.ListedModel, created time.Time) []byte {
	m := l.Model
	dst = api.AppendMember(dst, `{"id":`, l.ID)
	dst = strconv.AppendInt(append(dst, `,"object":"model","created":`...), created.Unix(), 10)
	dst = append(dst, `,"owned_by":"tandem"`...)
	if m.Context > 0 {
		dst = api.AppendInt(dst, `,"context_length":`, m.Context)
	}
	if m.Bytes > 0 {
		dst = api.AppendUint(dst, `,"size_bytes":`, m.Bytes)
	}
	if m.Quantization != "" {
		dst = api.AppendMember(dst, `,"quantization":`, m.Quantization)
	}
	if m.Architecture != "" {
		dst = api.AppendMember(dst, `,"architecture":`, m.Architecture)
	}
	if m.Capabilities != nil {
		dst = append(dst, `,"capabilities":[`...)
		for i, c := range m.Capabilities {
			dst = api.AppendString(api.AppendComma(dst, i), c)
		}
		dst = append(dst, ']')
	}
	return append(api.AppendMember(dst, `,"state":`, string(l.State())), '}')
}
