package trace

// InLogSample reports whether a request belongs to the one in n that are logged. It depends on the request id alone, so
// that both programs choose the same ones. n of 1 or less chooses all.
func InLogSample(requestID string, n int) bool {
	if n <= 1 {
		return true
	}
	h := uint64(14695981039346656037) // FNV-1a, without an allocation
	for i := range len(requestID) {
		h = (h ^ uint64(requestID[i])) * 1099511628211
	}
	h ^= h >> 32
	return h%uint64(n) == 0
}
