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
	dst = append(dst, `],"backends":[`...)
	for i := range s.Backends {
		dst = appendBackend(AppendComma(dst, i), &s.Backends[i])
	}
	dst = append(dst, `],"model_memory":[`...)
	for i := range s.Memory {
		dst = appendModelMemory(AppendComma(dst, i), &s.Memory[i])
	}
	return append(dst, "]}"...)
}

func appendBackend(dst []byte, b *Backend) []byte {
	dst = AppendMember(dst, `{"name":`, b.Name)
	dst = append(dst, `,"devices":[`...)
	for i, d := range b.Devices {
		dst = AppendComma(dst, i)
		dst = AppendMember(dst, `{"name":`, d.Name)
		dst = AppendMember(dst, `,"description":`, d.Description)
		dst = AppendUint(dst, `,"memory_total":`, d.MemoryTotalBytes)
		dst = append(AppendUint(dst, `,"memory_free":`, d.MemoryFreeBytes), '}')
	}
	return append(AppendMember(dst, `],"problem":`, b.Problem), '}')
}

func appendModelMemory(dst []byte, m *ModelMemory) []byte {
	dst = AppendMember(dst, `{"base_model":`, m.Model)
	dst = AppendInt(dst, `,"kv_cells":`, m.Cells)
	dst = AppendMember(dst, `,"kv_cells_limit":`, m.CellsLimit)
	dst = AppendMember(dst, `,"cache_type_k":`, m.CacheTypeK)
	dst = AppendMember(dst, `,"cache_type_v":`, m.CacheTypeV)
	dst = AppendBool(dst, `,"flash_attention":`, m.FlashAttention)
	dst = AppendMember(dst, `,"kv_layout":`, m.KVLayout)
	dst = AppendMember(dst, `,"sampling":`, m.Sampling)
	dst = AppendMember(dst, `,"sampling_decided_by":`, m.SamplingDecidedBy)
	dst = append(dst, `,"devices":[`...)
	for i, d := range m.Devices {
		dst = AppendMember(AppendComma(dst, i), `{"name":`, d.Device)
		dst = AppendUint(dst, `,"weights":`, d.WeightBytes)
		dst = AppendUint(dst, `,"kv_cache":`, d.CacheBytes)
		dst = AppendUint(dst, `,"compute":`, d.ComputeBytes)
		dst = append(AppendUint(dst, `,"adapters":`, d.AdapterBytes), '}')
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

// KeepAlive is a comment that a stream sends while nothing flows; clients skip it.
const KeepAlive = ": keep-alive\n\n"
