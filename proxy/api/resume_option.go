package api

import "time"

// MaxResumeSeconds is the highest stream_options.resume, the field with which dialects of OpenAI's and Anthropic's APIs
// ask for ResumeFor.
const MaxResumeSeconds = WholeNumber(MaxResumeFor / time.Second)

// ResumeOption is the field stream_options.
type ResumeOption struct {
	Resume *WholeNumber `json:"resume"` // seconds for which the stream is kept without a reader
}

// IsInRange reports whether the stream can be kept for so long.
func (o ResumeOption) IsInRange() bool { return o.Resume == nil || *o.Resume <= MaxResumeSeconds }

// Apply sets how long the request's stream is kept. A whole reply isn't kept.
func (o ResumeOption) Apply(r *Request) {
	if o.Resume != nil && r.Stream {
		r.ResumeFor = time.Duration(*o.Resume) * time.Second
	}
}
