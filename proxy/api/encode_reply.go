package api

// AppendHealth appends the body of GET /health.
func AppendHealth(dst []byte, h Health) []byte {
	dst = AppendMember(dst, `{"status":`, string(h.Status))
	dst = AppendTimestamp(append(dst, `,"timestamp":`...), h.Timestamp)
	return append(dst, '}')
}

// AppendProbe appends the body of GET /livez and /readyz.
func AppendProbe(dst []byte, p Probe) []byte {
	if p.OK {
		return append(dst, `{"status":"ok"}`...)
	}
	return append(AppendMember(dst, `{"status":"unavailable","reason":`, p.Reason), '}')
}

// AppendStatus appends the body of GET /status.
func AppendStatus(dst []byte, s *Status) []byte {
	version := s.Version
	if version == "" {
		version = ServiceVersion
	}
	dst = AppendMember(dst, `{"service":`, ServiceName)
	dst = AppendMember(dst, `,"version":`, version)
	dst = AppendMember(dst, `,"status":`, string(s.Status))
	dst = AppendTimestamp(append(dst, `,"timestamp":`...), s.Timestamp)
	dst = AppendBool(dst, `,"prometheus_available":`, s.Prometheus)
	dst = AppendInt(dst, `,"cached_models":`, len(s.Cached))
	dst = AppendMember(dst, `,"device":`, s.Device)
	dst = append(dst, `,"cached_model_info":[`...)
	for i, c := range s.Cached {
		dst = AppendComma(dst, i)
		dst = AppendMember(dst, `{"base_model":`, c.Model)
		dst = AppendMember(dst, `,"version":`, c.Version)
		dst = append(AppendBool(dst, `,"loaded":`, c.Loaded), '}')
	}
	dst = append(dst, `],"devices":[`...)
	for i, d := range s.Devices {
		dst = AppendComma(dst, i)
		dst = AppendMember(dst, `{"name":`, d.Name)
		dst = AppendMember(dst, `,"backend":`, d.Backend)
		dst = AppendUint(dst, `,"memory_total":`, d.MemoryTotalBytes)
		dst = append(AppendUint(dst, `,"memory_free":`, d.MemoryFreeBytes), '}')
	}
	return append(dst, "]}"...)
}

// AppendModels appends the body of GET /models.
func AppendModels(dst []byte, models []Model) []byte {
	dst = append(dst, `{"models":[`...)
	for i := range models {
		m := &models[i]
		dst = AppendComma(dst, i)
		dst = AppendMember(dst, `{"base_model":`, m.Name)
		dst = append(dst, `,"versions":[`...)
		for j, v := range m.Versions {
			dst = AppendString(AppendComma(dst, j), v)
		}
		dst = append(appendProblems(AppendMember(dst, `],"description":`, m.Description), m.Problems), '}')
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
		dst = append(AppendString(AppendComma(dst, i), p.Version), ':')
		dst = AppendString(dst, p.Text)
	}
	return append(dst, '}')
}

// AppendResult appends the body of POST /infer, which is also the data of the last event of a stream.
func AppendResult(dst []byte, r *Result) []byte {
	dst = AppendMember(dst, `{"result":`, r.Text)
	dst = append(dst, `,"metadata":`...)
	return append(appendMetadata(dst, &r.Metadata), '}')
}

func appendMetadata(dst []byte, m *Metadata) []byte {
	dst = AppendMember(dst, `{"model":`, m.Model)
	dst = AppendMember(dst, `,"version":`, m.Version)
	dst = AppendInt(dst, `,"tokens_generated":`, m.TokensGenerated)
	dst = AppendSeconds(append(dst, `,"response_time":`...), m.ResponseTime)
	dst = AppendSeconds(append(dst, `,"generation_time":`...), m.GenerationTime)
	dst = AppendMember(dst, `,"finish_reason":`, string(m.FinishReason))
	dst = AppendInt(dst, `,"prompt_tokens":`, m.PromptTokens)
	return append(AppendUint(dst, `,"seed":`, m.Seed), '}')
}

// AppendError appends the body of every error reply. param is null when no single field is to blame.
func AppendError(dst []byte, e *Error, requestID string) []byte {
	dst = AppendMember(dst, `{"error":{"type":`, string(e.Type))
	dst = AppendMember(dst, `,"message":`, e.Message)
	if e.Param == "" {
		dst = append(dst, `,"param":null`...)
	} else {
		dst = AppendMember(dst, `,"param":`, e.Param)
	}
	return append(AppendMember(dst, `,"request_id":`, requestID), "}}"...)
}

// KeepAlive is a comment that a stream sends while nothing flows; clients skip it.
const KeepAlive = ": keep-alive\n\n"

// AppendTextEvent appends one event of a stream with a piece of the answer. It allocates nothing but room in dst.
func AppendTextEvent[T string | []byte](dst []byte, text T) []byte {
	dst = AppendString(append(dst, `data: {"text":`...), text)
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
