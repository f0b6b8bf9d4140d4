package server

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"tandem/proxy/api"
	"tandem/proxy/api/anthropic"
	"tandem/proxy/api/infer"
	"tandem/proxy/api/openai"
	"tandem/proxy/api/responses"
	"tandem/proxy/api/vocabulary"
	"tandem/proxy/metrics"
	"tandem/proxy/openapi"
)

// OpenAPI writes the OpenAPI document with all defaults; captured has replies to its examples.
func OpenAPI(captured map[string]openapi.Captured) ([]byte, error) {
	endpoints, err := describedEndpoints()
	if err != nil {
		return nil, err
	}
	return openapi.Document(openapi.Info{
		Title: api.ServiceName, Version: api.ServiceVersion, License: map[string]string{"name": "MIT", "identifier": "MIT"},
		Description: "Inference with language models, in several dialects. Inference needs a key unless AUTH_DISABLED is set; the other paths don't. " +
			"Lengths of texts in requests are limits in bytes (UTF-8). Whole numbers may be written 100, 100.0 or 1e2. " +
			"Limits that are settings stand here with their defaults.",
	}, defaultKeyHeader, []openapi.Tag{
		{Name: "inference", Description: "This server's own dialect."},
		{Name: "openai", Description: "For clients of OpenAI's API."},
		{Name: "anthropic", Description: "For clients of Anthropic's API."},
		{Name: "vocabulary", Description: "What a model makes of a text, without inference."},
		{Name: "monitoring", Description: "Probes, status and metrics."},
	}, endpoints, captured)
}

// describedEndpoints are all endpoints with a description: each dialect describes its own.
func describedEndpoints() ([]openapi.Endpoint, error) {
	var list []openapi.Endpoint
	var problems []error
	for _, describe := range []func() ([]openapi.Endpoint, error){infer.Endpoints, openai.Endpoints, responses.Endpoints, anthropic.Endpoints, vocabularyEndpoints, monitoringEndpoints} {
		endpoints, err := describe()
		list, problems = append(list, endpoints...), append(problems, err)
	}
	for i := range list {
		if path := list[i].Path; path == modelsPath || path == modelPathForm {
			anthropic.DescribeModels(&list[i], path == modelsPath)
		}
	}
	return list, errors.Join(problems...)
}

// vocabularyEndpoints are those of the vocabulary, which write errors as OpenAI's do and read chats as they do.
func vocabularyEndpoints() ([]openapi.Endpoint, error) {
	chat, err := openai.ChatBody()
	if err != nil {
		return nil, err
	}
	return vocabulary.Endpoints(chat, openai.Errors())
}

func monitoringEndpoints() ([]openapi.Endpoint, error) {
	live, err := openapi.ReplyOf(LiveStatus{}, liveFields(), reflect.TypeFor[metrics.Number]())
	if err != nil {
		return nil, fmt.Errorf("describe the reply of /status/live: %w", err)
	}
	list := []openapi.Endpoint{
		{Path: "/health", ID: "health", Summary: "Whether the service lives; always 200", Replies: openapi.JSONReply("The state.", openapi.Object(
			openapi.Has("status", openapi.Words(api.HealthOK, api.HealthLoading, api.HealthDegraded, api.HealthDraining)), openapi.Has("timestamp", timestamp()),
		).Named("Health"))},
		{Path: "/livez", ID: "livez", Summary: "Liveness probe", Replies: openapi.JSONReply("The server answers.", openapi.Object(openapi.Has("status", openapi.Constant("ok"))).Named("Alive"))},
		{Path: "/readyz", ID: "readyz", Summary: "Readiness probe; says what is missing", Replies: append(
			openapi.JSONReply("Ready.", openapi.Object(openapi.Has("status", openapi.Constant("ok"))).Named("Alive")),
			openapi.Reply{Status: 503, Doc: "Not ready.", Content: []openapi.Content{{Type: "application/json", Schema: openapi.Object(
				openapi.Has("status", openapi.Constant("unavailable")), openapi.Has("reason", openapi.Text(1, 0).About("What is missing.")),
			).Named("NotReady")}}},
		)},
		{Path: "/status", ID: "status", Summary: "Status, devices and loaded models", Replies: openapi.JSONReply("The status.", statusSchema())},
		{
			Path: "/status/live", ID: "statusLive", Summary: "The figures of this moment", Doc: "Times are seconds, ratios 0 to 1; a figure that nobody knows is null.",
			Parameters: []openapi.Parameter{{Name: "since", In: "query", Description: "Unix time in seconds: adds the points of history that are later.", Schema: openapi.AtLeast(0)}},
			Replies: []openapi.Reply{{Status: 200, Doc: "The figures.", Headers: []string{"Cache-Control"},
				Content: []openapi.Content{{Type: "application/json", Schema: live.Named("LiveStatus")}}}},
		},
		{Path: "/models", ID: "models", Summary: "Installed models with their versions", Replies: openapi.JSONReply("The models.", openapi.Object(
			openapi.Has("models", openapi.List(modelSchema(), 0, 0)),
		).Named("Models"))},
		{Path: defaultMetricsPath, ID: "metrics", Summary: "Metrics for Prometheus", Doc: "The path is METRICS_PATH; METRICS_ADDR moves it to a port of its own.", Replies: textReply()},
		{Path: "/metrics/router", ID: "routerMetrics", Summary: "A short page of metrics for routers", Replies: textReply()},
		{Path: openAPIPath, ID: "openapi", Summary: "This document", Replies: []openapi.Reply{
			{Status: 200, Doc: "The document.", Headers: []string{"ETag", "Cache-Control"}, Content: []openapi.Content{{Type: "application/json", Schema: openapi.Map(&openapi.Schema{})}}},
			{Status: 304, Doc: "The document is the one that If-None-Match names.", Headers: []string{"ETag", "Cache-Control"}},
		}},
		{Path: "/", ID: "index", Summary: "A table of the paths; in a browser the live page", Replies: []openapi.Reply{{Status: 200, Doc: "The table or the page.", Content: []openapi.Content{
			{Type: "text/plain", Schema: openapi.Text(0, 0)}, {Type: "text/html", Schema: openapi.Text(0, 0)},
		}}}},
	}
	for i := range list {
		e := &list[i]
		e.Method, e.Tag, e.Errors, e.ErrorTypes = "get", "monitoring", infer.Errors(), openapi.ConnectionErrors()
		e.Parameters = append(e.Parameters, openapi.CommonParameters()...)
		if slices.Contains([]string{"health", "livez", "readyz", "status", "models"}, e.ID) {
			e.Examples = []openapi.Example{{Name: "reply", Summary: e.Replies[0].Doc}}
		}
	}
	return list, nil
}

func textReply() []openapi.Reply {
	return []openapi.Reply{{Status: 200, Doc: "The metrics.", Content: []openapi.Content{{Type: "text/plain", Schema: openapi.Text(1, 0)}}}}
}

func timestamp() *openapi.Schema { return openapi.AtLeast(0).About("Unix time in seconds.") }

func statusSchema() *openapi.Schema {
	return openapi.Object(
		openapi.Has("service", openapi.Constant(api.ServiceName)),
		openapi.Has("version", openapi.Text(1, 0)),
		openapi.Has("status", openapi.Words(api.ServiceHealthy, api.ServiceLoading, api.ServiceDegraded, api.ServiceUnhealthy, api.ServiceDraining)),
		openapi.Has("timestamp", timestamp()),
		openapi.Has("prometheus_available", openapi.Bool()),
		openapi.Has("cached_models", openapi.Count().About("The number of entries of cached_model_info.")),
		openapi.Has("device", openapi.Text(1, 0).About("cuda, cpu, vulkan, metal, rocm, mock or unknown.")),
		openapi.Has("cached_model_info", openapi.List(openapi.Object(
			openapi.Has("base_model", openapi.Text(1, 0)), openapi.Has("version", openapi.Text(1, 0)), openapi.Has("loaded", openapi.Bool().About("false while it loads.")),
		), 0, 0)),
		openapi.Has("devices", openapi.List(openapi.Object(
			openapi.Has("name", openapi.Text(0, 0)), openapi.Has("backend", openapi.Text(0, 0)),
			openapi.Has("memory_total", openapi.Count().About("Bytes.")), openapi.Has("memory_free", openapi.Count().About("Bytes.")),
		), 0, 0)),
		openapi.Has("backends", openapi.List(openapi.Object(
			openapi.Has("name", openapi.Text(0, 0).About("cpu, cuda ….")),
			openapi.Has("devices", openapi.List(openapi.Object(
				openapi.Has("name", openapi.Text(0, 0)), openapi.Has("description", openapi.Text(0, 0)),
				openapi.Has("memory_total", openapi.Count().About("Bytes; 0 for a GPU that isn't used.")), openapi.Has("memory_free", openapi.Count().About("Bytes, when the engine started.")),
			), 0, 0)),
			openapi.Has("problem", openapi.Text(0, 0).About("Why it gives no device; empty when it gives one.")),
		), 0, 0).About("The compute backends that are installed at the engine.")),
		openapi.Has("model_memory", openapi.List(openapi.Object(
			openapi.Has("base_model", openapi.Text(1, 0)),
			openapi.Has("kv_cells", openapi.Count().About("Tokens that the KV cache holds, of all requests together.")),
			openapi.Has("kv_cells_limit", openapi.Text(0, 0).About("What decided that number.")),
			openapi.Has("cache_type_k", openapi.Text(0, 0).About("Format of the keys in the KV cache; empty: it has none.")),
			openapi.Has("cache_type_v", openapi.Text(0, 0).About("Format of the values.")),
			openapi.Has("flash_attention", openapi.Bool().About("Attention is computed in one operation.")),
			openapi.Has("kv_layout", openapi.Text(0, 0).About("unified: requests share the KV cache; streams: each has a part of its own; empty: there is no KV cache.")),
			openapi.Has("sampling", openapi.Text(0, 0).About("device: the device finds the tokens between which one is drawn; host: the host does, in whole rows of logits; empty: the model draws no tokens.")),
			openapi.Has("sampling_decided_by", openapi.Text(0, 0).About("What decided that when the model was loaded.")),
			openapi.Has("devices", openapi.List(openapi.Object(
				openapi.Has("name", openapi.Text(0, 0)), openapi.Has("weights", openapi.Count().About("Bytes.")),
				openapi.Has("kv_cache", openapi.Count().About("Bytes.")), openapi.Has("compute", openapi.Count().About("Bytes of the buffers for computing.")),
				openapi.Has("adapters", openapi.Count().About("Bytes of the loaded versions' adapters, with the room that steps of several versions need.")),
			), 0, 0)),
		), 0, 0).About("What each loaded base model takes, by device.")),
	).Named("Status")
}

func modelSchema() *openapi.Schema {
	return openapi.Object(
		openapi.Has("base_model", openapi.Text(1, 0)),
		openapi.Has("versions", openapi.List(openapi.Text(1, 0), 0, 0)),
		openapi.Has("description", openapi.Text(0, 0)),
		openapi.May("problems", openapi.Map(openapi.Text(1, 0)).About("Why a version can't be loaded, by its name.")),
	).Named("Model")
}

// liveFields says what the members of /status/live mean.
func liveFields() openapi.Fields {
	points := openapi.Fields{
		"timestamp": {Doc: "Unix time in seconds."}, "status": {Doc: "As in /status."}, "device": {Doc: "As in /status."},
		"key_header": {Doc: "The header that takes the key."}, "engine_up": {Doc: "1 or 0."},
		"exchanges": {Doc: "HTTP requests in hand."}, "connections": {Doc: "Open connections."},
		"waiting": {Doc: "Requests in the queue."}, "running": {Doc: "Requests at the engine."}, "queue_capacity": {Doc: "How many may wait."},
		"cache_size": {Doc: "How many versions may be loaded."}, "loaded": {Doc: "How many are."}, "loading": {Doc: "How many are being loaded."},
		"models":        {Doc: "How many models are installed."},
		"loaded_models": {Doc: "The versions in the engine's cache."}, "*.base_model": {Doc: "A model."}, "*.version": {Doc: "A version of it."},
		"*.loading": {Doc: "Whether it is being loaded."}, "*.default": {Doc: "Whether it is the default."},
		"targets": {Doc: "Figures with their targets."}, "*.name": {Doc: "Its name, for programs."}, "*.title": {Doc: "Its name, for people."},
		"*.unit": {Doc: "Its unit.", Schema: openapi.Words("seconds", "ratio", "per_second")}, "*.value": {Doc: "Its value."},
		"*.target": {Doc: "Its target."}, "*.above": {Doc: "Whether the value should be above the target; otherwise below."},
		"*.state": {Doc: "idle: too little is asked for to tell.", Schema: openapi.Words(targetMet, targetMissed, targetIdle)},
		"figures": {Doc: "Over the last minute, or since the start when that is shorter."}, "*.window_seconds": {Doc: "What they cover."},
		"*.response": {Doc: "Time of whole answers."}, "*.first_token": {Doc: "Time to the first token."}, "*.inter_token": {Doc: "Time between two tokens."},
		"*.phases": {Doc: "Where the mean request spent its time."}, "*.success_ratio": {Doc: "Of successes and errors."},
		"*.cache_hit_ratio": {Doc: "Of look-ups in the model cache."}, "*.model_memory": {Doc: "What models take."}, "*.bytes": {Doc: "Bytes."},
		"*.engine_restarts": {Doc: "Since the proxy started."}, "*.restart_reasons": {Doc: "The same by reason."},
		"history": {Doc: "Points, only with since. Each covers ten seconds."}, "*.t": {Doc: "Unix time in seconds."},
		"*.waiting": {Doc: "Requests in the queue."}, "*.running": {Doc: "Requests at the engine."},
		"*.kv_usage": {Doc: "Share of the KV cache in use."}, "*.engine_up": {Doc: "1 or 0."}, "*.error_ratio": {Doc: "Of successes and errors."},
		"*.memory_ratio": {Doc: "In use on the fullest device."}, "*.requests_per_second": {Doc: "Answered with success."}, "*.tokens_per_second": {Doc: "Generated."},
	}
	for name, doc := range map[string]string{
		"mean": "The mean.", "p50": "Half is below it.", "p95": "95 of 100 are below it.", "p99": "99 of 100 are below it.",
		"queue": "Seconds in the queue.", "prefill": "Seconds of the prompt.", "decode": "Seconds of the answer.", "restart": "Seconds of engine restarts.",
		"first_token_p50": "Time to the first token.", "first_token_p95": "Time to the first token.", "inter_token_p50": "Time between two tokens.", "inter_token_p95": "Time between two tokens.",
	} {
		points["*."+name] = openapi.Field{Doc: doc}
	}
	return points
}
