package api

// AppendHealth appends the body of GET /health.
func AppendHealth(dst []byte, h Health) []byte {
	dst = appendMember(dst, `{"status":`, string(h.Status))
	dst = appendTimestamp(append(dst, `,"timestamp":`...), h.Timestamp)
	return append(dst, '}')
}

// AppendProbe appends the body of GET /livez and /readyz.
func AppendProbe(dst []byte, p Probe) []byte {
	if p.OK {
		return append(dst, `{"status":"ok"}`...)
	}
	return append(appendMember(dst, `{"status":"unavailable","reason":`, p.Reason), '}')
}

// AppendStatus appends the body of GET /status.
func AppendStatus(dst []byte, s *Status) []byte {
	version := s.Version
	if version == "" {
		version = ServiceVersion
	}
	dst = appendMember(dst, `{"service":`, ServiceName)
	dst = appendMember(dst, `,"version":`, version)
	dst = appendMember(dst, `,"status":`, string(s.Status))
	dst = appendTimestamp(append(dst, `,"timestamp":`...), s.Timestamp)
	dst = appendBool(dst, `,"prometheus_available":`, s.Prometheus)
	dst = appendInt(dst, `,"cached_models":`, len(s.Cached))
	dst = appendMember(dst, `,"device":`, s.Device)
	dst = append(dst, `,"cached_model_info":[`...)
	for i, c := range s.Cached {
		dst = appendComma(dst, i)
		dst = appendMember(dst, `{"base_model":`, c.Model)
		dst = appendMember(dst, `,"version":`, c.Version)
		dst = append(appendBool(dst, `,"loaded":`, c.Loaded), '}')
	}
	dst = append(dst, `],"devices":[`...)
	for i, d := range s.Devices {
		dst = appendComma(dst, i)
		dst = appendMember(dst, `{"name":`, d.Name)
		dst = appendMember(dst, `,"backend":`, d.Backend)
		dst = appendUint(dst, `,"memory_total":`, d.MemoryTotalBytes)
		dst = append(appendUint(dst, `,"memory_free":`, d.MemoryFreeBytes), '}')
	}
	return append(dst, "]}"...)
}

// AppendModels appends the body of GET /models.
func AppendModels(dst []byte, models []Model) []byte {
	dst = append(dst, `{"models":[`...)
	for i := range models {
		m := &models[i]
		dst = appendComma(dst, i)
		dst = appendMember(dst, `{"base_model":`, m.Name)
		dst = append(dst, `,"versions":[`...)
		for j, v := range m.Versions {
			dst = appendString(appendComma(dst, j), v)
		}
		dst = append(appendProblems(appendMember(dst, `],"description":`, m.Description), m.Problems), '}')
	}
	return append(dst, "]}"...)
}

// appendProblems appends what is wrong with a model's versions, by their names; a sound model has no such member.
func appendProblems(dst []byte, list []Problem) []byte {
	if len(list) == 0 {
		return dst
	}
	dst = append(dst, `,"problems":{`...)
	for i, p := range list {
		dst = append(appendString(appendComma(dst, i), p.Version), ':')
		dst = appendString(dst, p.Text)
	}
	return append(dst, '}')
}

// AppendResult appends the body of POST /infer, which is also the data of the last event of a stream.
func AppendResult(dst []byte, r *Result) []byte {
	dst = appendMember(dst, `{"result":`, r.Text)
	dst = append(dst, `,"metadata":`...)
	return append(appendMetadata(dst, &r.Metadata), '}')
}

func appendMetadata(dst []byte, m *Metadata) []byte {
	dst = appendMember(dst, `{"model":`, m.Model)
	dst = appendMember(dst, `,"version":`, m.Version)
	dst = appendInt(dst, `,"tokens_generated":`, m.TokensGenerated)
	dst = appendSeconds(append(dst, `,"response_time":`...), m.ResponseTime)
	dst = appendSeconds(append(dst, `,"generation_time":`...), m.GenerationTime)
	dst = appendMember(dst, `,"finish_reason":`, string(m.FinishReason))
	dst = appendInt(dst, `,"prompt_tokens":`, m.PromptTokens)
	return append(appendUint(dst, `,"seed":`, m.Seed), '}')
}

// AppendError appends the body of every error reply. param is null when no single field is to blame.
func AppendError(dst []byte, e *Error, requestID string) []byte {
	dst = appendMember(dst, `{"error":{"type":`, string(e.Type))
	dst = appendMember(dst, `,"message":`, e.Message)
	if e.Param == "" {
		dst = append(dst, `,"param":null`...)
	} else {
		dst = appendMember(dst, `,"param":`, e.Param)
	}
	return append(appendMember(dst, `,"request_id":`, requestID), "}}"...)
}

// KeepAlive is a comment that a stream sends while nothing flows; clients skip it.
const KeepAlive = ": keep-alive\n\n"

// AppendTextEvent appends one event of a stream with a piece of the answer. It allocates nothing but room in dst.
func AppendTextEvent[T string | []byte](dst []byte, text T) []byte {
	dst = appendString(append(dst, `data: {"text":`...), text)
	return append(dst, "}\n\n"...)
}

// AppendFinalEvent appends the last event of a stream that went well.
func AppendFinalEvent(dst []byte, r *Result) []byte {
	return append(AppendResult(append(dst, "data: "...), r), "\n\n"...)
}

// AppendErrorEvent appends the last event of a stream that failed.
func AppendErrorEvent(dst []byte, e *Error, requestID string) []byte {
	return append(AppendError(append(dst, "event: error\ndata: "...), e, requestID), "\n\n"...)
}

// appendComma separates the members of a list from the second one on.
func appendComma(dst []byte, i int) []byte {
	if i == 0 {
		return dst
	}
	return append(dst, ',')
}
