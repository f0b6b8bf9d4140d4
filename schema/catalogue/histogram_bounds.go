package catalogue

// Bucket bounds. Edges at the documented targets (0.5, 1 and 2 s) make the shares under them exact.
var (
	boundsLatency = Bounds{"LAT", []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300},
		"seconds of a whole request: edges at the documented targets, a tail for long answers"}
	boundsFirstToken = Bounds{"TTFT", []float64{0.0001, 0.0002, 0.0005, 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80},
		"seconds to the first token: OpenTelemetry's edges, finer below 1 ms for small models, coarser above 10 s for queues"}
	boundsToken = Bounds{"ITL", []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5},
		"seconds per token: OpenTelemetry's edges and finer ones below 10 ms for small models"}
	boundsLoad = Bounds{"LOAD", []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200},
		"seconds of a model load: from a small cached file to twenty minutes from a cold disk"}
	boundsBytes = Bounds{"BYTES", []float64{64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216},
		"bytes of a body, by fours"}
	boundsTokens = Bounds{"TOK", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072},
		"tokens of a prompt or an answer, by twos"}
	boundsPhase = Bounds{"QUE", []float64{0.0001, 0.0002, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120},
		"seconds of a phase of a request"}
	boundsRecovery = Bounds{"REC", []float64{0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600},
		"seconds from a lost engine to one that serves again"}
	boundsCall = Bounds{"IPC", []float64{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1},
		"seconds of a round trip over the socket"}
	boundsStep = Bounds{"STEP", []float64{0.0001, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
		"seconds of one decode step"}
	boundsBatchTokens = Bounds{"BT", []float64{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384},
		"tokens of one decode step"}
	boundsBatchSequences = Bounds{"BS", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256},
		"sequences of one decode step"}
)

// AllBounds returns every set of bounds, for the documentation.
func AllBounds() []Bounds {
	return []Bounds{boundsLatency, boundsFirstToken, boundsToken, boundsLoad, boundsBytes, boundsTokens, boundsPhase, boundsRecovery,
		boundsCall, boundsStep, boundsBatchTokens, boundsBatchSequences}
}
