// Package journal remembers what each request in flight has received, so that it can be continued on another engine. It is data with a
// budget in bytes: what a request may come to need is reserved when it is admitted, and a record is never cut short. It sends nothing
// and decides nothing.
package journal

import (
	"tandem/proxy/api"
)

const (
	// recordBytes is what a record costs besides its contents: the structs around it and the template's share of a prompt.
	recordBytes = 4 << 10
	// promptFactor: the text itself, and token ids of 4 bytes for at most every byte of it.
	promptFactor = 5
	// tokenBytes of an answer: 4 for the id and the text that a slow client hasn't fetched yet.
	tokenBytes = 12
)

// Journal hands out byte budget. It is not safe for concurrent use; its owner holds a lock.
type Journal struct {
	max      int64
	reserved int64
	records  int
}

// New makes a journal for at most maxBytes.
func New(maxBytes int64) *Journal { return &Journal{max: maxBytes} }

// Bytes that are reserved now; more than the limit only after a record grew beyond what was foreseen.
func (j *Journal) Bytes() int64 { return j.reserved }

// Len is the number of open records.
func (j *Journal) Len() int { return j.records }

// Max is the limit in bytes.
func (j *Journal) Max() int64 { return j.max }

// Need is what a request with at most newTokens in its answer may come to need.
func Need(r *api.Request, newTokens int) int64 {
	text := len(r.Prompt) + len(r.System) + len(r.JSONSchema)
	return recordBytes + promptFactor*int64(text) + tokenBytes*int64(newTokens)
}

// Open reserves bytes for a record, or gives nil when they don't fit.
func (j *Journal) Open(bytes int64) *Record {
	if j.reserved+bytes > j.max {
		return nil
	}
	j.reserved += bytes
	j.records++
	return &Record{journal: j, reserved: bytes}
}

// Record of one request. The zero value of every field means that nothing came yet.
type Record struct {
	journal  *Journal
	reserved int64
	closed   bool

	Accepted bool // what follows, up to Generated, is what the engine gave
	// PromptTokens, Grammar, Stops and ParserState are the form in which the request is sent again.
	PromptTokens []int32
	Grammar      string
	Stops        []string
	ParserState  []byte
	Revision     []byte // of the model that generated
	Numerics     string // id of how the engine computes that gave the newest token
	MaxNewTokens int    // after cutting to the context

	Generated []int32 // ids of the tokens received, in order
	TextBytes int     // of the answer, released by the engine so far
	Held      int     // newest tokens in Generated whose text is held back: of a character or a stop string that isn't complete
}

// Reserved is the bytes that this record holds of the journal's budget.
func (r *Record) Reserved() int64 { return r.reserved }

// Rendered enters what the engine made of the request. It keeps the slices. What it needs beyond the reservation is added, since a
// record is never cut.
func (r *Record) Rendered(promptTokens []int32, grammar string, stops []string, parserState, revision []byte, maxNewTokens int) {
	r.Accepted = true
	r.PromptTokens, r.Grammar, r.Stops = promptTokens, grammar, stops
	r.ParserState, r.Revision, r.MaxNewTokens = parserState, revision, maxNewTokens
	r.grow(recordBytes + 4*int64(len(promptTokens)) + int64(len(grammar)+len(parserState)) + tokenBytes*int64(maxNewTokens))
}

// Token enters the next token and how many bytes of text came with it.
func (r *Record) Token(id int32, textBytes int) {
	r.Generated = append(r.Generated, id)
	r.TextBytes += textBytes
	r.Held++
	if textBytes > 0 {
		r.Held = 0
	}
}

// Forget returns to the state before an engine accepted the request. Only for a request of which no token came.
func (r *Record) Forget() {
	r.Accepted = false
	r.PromptTokens, r.Grammar, r.Stops, r.ParserState, r.Revision = nil, "", nil, nil, nil
}

// ReplayBytes is about the size of the frame that sends this record again.
func (r *Record) ReplayBytes() int64 {
	return recordBytes + 4*int64(len(r.PromptTokens)+len(r.Generated)) + int64(len(r.Grammar)+len(r.ParserState))
}

func (r *Record) grow(bytes int64) {
	if more := bytes - r.reserved; more > 0 && !r.closed {
		r.reserved += more
		r.journal.reserved += more
	}
}

// Close gives the reservation back. Idempotent.
func (r *Record) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.journal.reserved -= r.reserved
	r.journal.records--
}
