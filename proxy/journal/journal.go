// Package journal remembers what each request in flight has received, so that it can be continued on another engine. It
// has a budget in bytes: what a request may need is reserved when it is admitted, and a record is never truncated. The
// package keeps everything in memory and writes no file; it sends nothing and decides nothing.
package journal

import (
	"tandem/proxy/api"
)

const (
	// recordOverheadBytes is what a record takes besides its contents: the structs around it, and what the template
	// adds to a prompt.
	recordOverheadBytes = 4 << 10
	// bytesPerPromptByte counts the text itself, and a token id of 4 bytes for at most every byte of it.
	bytesPerPromptByte = 5
	// bytesPerNewToken counts 4 bytes for the id, and the text that a slow client hasn't fetched yet.
	bytesPerNewToken = 12
	// bytesPerLogprob counts a token with its log-probability, bytesPerTopLogprob each of the most likely tokens there,
	// both with their text.
	bytesPerLogprob    = 64
	bytesPerTopLogprob = 48
	// bytesPerTrigger is what a trigger of a grammar takes besides its text.
	bytesPerTrigger = 32
	// bytesPerEmbedding counts the numbers of one.
	bytesPerEmbedding = 16 << 10
)

// Journal reserves bytes for records. It isn't safe for concurrent use; its owner holds a lock.
type Journal struct {
	maxBytes      int64
	reservedBytes int64
	records       int
}

// New makes a journal for at most maxBytes.
func New(maxBytes int64) *Journal { return &Journal{maxBytes: maxBytes} }

// ReservedBytes is what is reserved now. It exceeds the limit only after a record grew beyond its estimate.
func (j *Journal) ReservedBytes() int64 { return j.reservedBytes }

// Len is the number of open records.
func (j *Journal) Len() int { return j.records }

// MaxBytes is the limit.
func (j *Journal) MaxBytes() int64 { return j.maxBytes }

// EstimateBytes is what a request with at most newTokens in its answer may need.
func EstimateBytes(r *api.Request, newTokens int) int64 {
	bytes := recordOverheadBytes + bytesPerPromptByte*int64(r.TextBytes()) + newTokenBytes(r)*int64(newTokens)
	if r.PromptLogprobs {
		bytes += logprobBytes(r) * int64(r.TextBytes())
	}
	if r.Task != api.TaskGenerate {
		bytes += bytesPerEmbedding
	}
	return bytes
}

// newTokenBytes is what one token of the answer may need.
func newTokenBytes(r *api.Request) int64 {
	if r.Logprobs {
		return bytesPerNewToken + logprobBytes(r)
	}
	return bytesPerNewToken
}

func logprobBytes(r *api.Request) int64 {
	return bytesPerLogprob + bytesPerTopLogprob*int64(r.TopLogprobs)
}

// HasRoom reports whether Open would reserve so many bytes.
func (j *Journal) HasRoom(bytes int64) bool { return j.reservedBytes+bytes <= j.maxBytes }

// Open reserves bytes for a record, or returns nil when they don't fit.
func (j *Journal) Open(bytes int64) *Record {
	if !j.HasRoom(bytes) {
		return nil
	}
	j.reservedBytes += bytes
	j.records++
	return &Record{journal: j, reservedBytes: bytes}
}

// Rendered is what an engine made of a request, and the form in which the request is sent again.
type Rendered struct {
	PromptTokens []int32
	Grammar      string
	Triggers     []Trigger // the grammar begins at the first of these; none: with the answer
	Stops        []string
	ParserState  []byte
}

// Trigger is a text in an answer at which its grammar begins. The engine knows what its kinds mean.
type Trigger struct {
	Kind  uint8
	Value string
	Token int32
}

// Bytes is about what the form takes in memory and in a frame.
func (r *Rendered) Bytes() int64 {
	n := 4*len(r.PromptTokens) + len(r.Grammar) + len(r.ParserState)
	for _, t := range r.Triggers {
		n += bytesPerTrigger + len(t.Value)
	}
	return int64(n)
}

// Record of what one request has received. The zero value of a field means that nothing came yet.
type Record struct {
	journal       *Journal
	reservedBytes int64
	closed        bool

	Accepted bool // the fields from here to Generated are what the engine returned
	Rendered
	Revision     []byte // of the model that generated
	Numerics     string // numerics id of the engine that generated the newest token
	MaxNewTokens int    // after cutting to the context

	Generated []int32 // ids of the tokens received, in order
	TextBytes int     // of the answer, as far as engines have sent it
	// newest tokens in Generated whose text the engine holds back, since a character or stop string isn't complete
	HeldTokens int
}

// Reserved is how many bytes of the journal's budget this record takes.
func (r *Record) Reserved() int64 { return r.reservedBytes }

// SetRendered records what the engine made of the request. It keeps the slices. What it needs beyond the reservation is
// added to that, since a record is never truncated.
func (r *Record) SetRendered(form Rendered, revision []byte, maxNewTokens int) {
	r.Accepted = true
	r.Rendered, r.Revision, r.MaxNewTokens = form, revision, maxNewTokens
	r.grow(recordOverheadBytes + form.Bytes() + bytesPerNewToken*int64(maxNewTokens))
}

// AddToken records the next token, and how many bytes of text came with it.
func (r *Record) AddToken(id int32, textBytes int) {
	r.Generated = append(r.Generated, id)
	r.TextBytes += textBytes
	r.HeldTokens++
	if textBytes > 0 {
		r.HeldTokens = 0
	}
}

// Reset returns to the state before an engine accepted the request. It is only for a request without a token.
func (r *Record) Reset() {
	r.Accepted = false
	r.Rendered, r.Revision = Rendered{}, nil
}

// Shrink drops what only sending the request again needs, and lowers the reservation to what its answer takes: what was
// received, and answerBytes besides.
func (r *Record) Shrink(req *api.Request, answerBytes int64) {
	need := recordOverheadBytes + newTokenBytes(req)*int64(len(r.Generated)) + answerBytes
	if req.PromptLogprobs {
		need += logprobBytes(req) * int64(len(r.PromptTokens))
	}
	r.Rendered = Rendered{}
	if less := r.reservedBytes - need; less > 0 && !r.closed {
		r.reservedBytes -= less
		r.journal.reservedBytes -= less
	}
}

// ReplayBytes is about the size of the frame that sends this record again.
func (r *Record) ReplayBytes() int64 {
	return recordOverheadBytes + 4*int64(len(r.Generated)) + r.Bytes()
}

// grow raises the reservation to at least so many bytes.
func (r *Record) grow(bytes int64) {
	if more := bytes - r.reservedBytes; more > 0 && !r.closed {
		r.reservedBytes += more
		r.journal.reservedBytes += more
	}
}

// Close gives the reservation back. Idempotent.
func (r *Record) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.journal.reservedBytes -= r.reservedBytes
	r.journal.records--
}
