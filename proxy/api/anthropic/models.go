package anthropic

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"tandem/proxy/api"
)

// Bounds of the query's limit, as in Anthropic's API.
const (
	defaultModelsLimit = 20
	maxModelsLimit     = 1000
)

// ModelsPage is the page of the list of models that a client asks for.
type ModelsPage struct {
	limit             int
	beforeID, afterID string // at most one of them
}

// ParseModelsPage reads the query of GET /v1/models.
func ParseModelsPage(limit, beforeID, afterID string) (ModelsPage, *api.Error) {
	p := ModelsPage{limit: defaultModelsLimit, beforeID: beforeID, afterID: afterID}
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > maxModelsLimit {
			return p, api.Invalid("limit", "limit must be a whole number from 1 to %d", maxModelsLimit)
		}
		p.limit = n
	}
	if beforeID != "" && afterID != "" {
		return p, api.Invalid("before_id", "before_id and after_id exclude each other; leave one out")
	}
	return p, nil
}

// AppendModels appends the body of GET /v1/models. created is the same for all: nobody knows when a model was made.
func AppendModels(dst []byte, models []api.Model, p ModelsPage, created time.Time) ([]byte, *api.Error) {
	list, more, err := p.of(api.ListModels(models))
	if err != nil {
		return dst, err
	}
	dst = append(dst, `{"data":[`...)
	for i, l := range list {
		dst = appendModelInfo(api.AppendComma(dst, i), l, created)
	}
	dst = fmt.Appendf(dst, `],"has_more":%t`, more)
	if len(list) == 0 {
		return append(dst, `,"first_id":null,"last_id":null}`...), nil
	}
	dst = api.AppendMember(dst, `,"first_id":`, list[0].ID)
	return append(api.AppendMember(dst, `,"last_id":`, list[len(list)-1].ID), '}'), nil
}

// AppendModel appends the body of GET /v1/models/{id}. The error is a 404.
func AppendModel(dst []byte, models []api.Model, id string, created time.Time) ([]byte, *api.Error) {
	l, err := api.FindListed(models, id)
	if err != nil {
		return dst, err
	}
	return appendModelInfo(dst, l, created), nil
}

// of returns the page's part of the list, and whether there is more in the direction in which the client reads.
func (p ModelsPage) of(list []api.ListedModel) (page []api.ListedModel, more bool, err *api.Error) {
	if p.beforeID != "" {
		end, err := placeOf(list, p.beforeID, "before_id")
		if err != nil {
			return nil, false, err
		}
		start := max(0, end-p.limit)
		return list[start:end], start > 0, nil
	}
	start := 0
	if p.afterID != "" {
		at, err := placeOf(list, p.afterID, "after_id")
		if err != nil {
			return nil, false, err
		}
		start = at + 1
	}
	end := min(len(list), start+p.limit)
	return list[start:end], end < len(list), nil
}

func placeOf(list []api.ListedModel, id, param string) (int, *api.Error) {
	i := slices.IndexFunc(list, func(l api.ListedModel) bool { return l.ID == id })
	if i < 0 {
		return 0, api.Invalid(param, "%s is %s, which is no id of the list", param, api.Quote(id))
	}
	return i, nil
}

func appendModelInfo(dst []byte, l api.ListedModel, created time.Time) []byte {
	dst = api.AppendMember(dst, `{"type":"model","id":`, l.ID)
	dst = api.AppendMember(dst, `,"display_name":`, l.ID)
	return append(api.AppendMember(dst, `,"created_at":`, created.UTC().Format(time.RFC3339)), '}')
}
