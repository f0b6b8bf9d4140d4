package models

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// ggufHeader is what the registry reads of a GGUF file before the native library does.
type ggufHeader struct {
	Architecture string
	Type         string // general.type: model or adapter
	TrainContext int    // 0: the file doesn't say
	Quantization string // the library's words for most of the tensors; empty: the file doesn't say
	Tensors      int
	SlotBytes    int64 // of an adapter: what it takes in a place beside others
	Pooling      int   // the library's number; 0: none, or the file doesn't say
	LooksAhead   bool  // attention isn't causal
	Classifier   bool  // it has weights that make a score
	Template     templateForm
}

// Bounds of a header; everything else is bounded by the file's size.
const (
	maxKeyBytes    = 64 << 10
	maxShortString = 1 << 10 // values that are kept
	maxPairs       = 1 << 16
	maxTensors     = 1 << 20
	maxTensorName  = 256
	maxDims        = 4
	defaultAlign   = 32
	maxTemplate    = 1 << 20 // bytes of a chat template
	maxPerSuffix   = 16      // keys that differ in their architecture
)

// Keys that begin with the architecture, which may come after them.
const (
	contextKey = ".context_length"
	poolingKey = ".pooling_type"
	causalKey  = ".attention.causal"
)

// Keys of chat templates.
const (
	templateKey     = "tokenizer.chat_template"
	toolTemplateKey = "tokenizer.chat_template.tool_use"
)

var errGGUF = errors.New("bad GGUF file")

// readHeader checks the header of a GGUF file of size bytes and that every tensor lies inside the file. It reads up to
// the end of the tensor table and keeps no more than a few KiB in memory.
func readHeader(r io.Reader, size int64) (ggufHeader, error) {
	g := &ggufReader{r: bufio.NewReaderSize(io.LimitReader(r, size), 64<<10), left: size}
	h, err := g.header(size)
	if err != nil {
		return ggufHeader{}, fmt.Errorf("%w: %w", errGGUF, err)
	}
	return h, nil
}

// ggufReader reads little-endian values; after the first error it reads only zeros.
type ggufReader struct {
	r    *bufio.Reader
	left int64 // bytes of the file not yet read
	err  error
	buf  [8]byte
	slot loraSlot
}

func (g *ggufReader) fail(format string, args ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, args...)
	}
}

// readFailed tells the end of the file from trouble of the disk.
func (g *ggufReader) readFailed(err error) {
	if mayPass(err) {
		g.fail("the header can't be read: %w", err)
	}
	g.fail("the header is cut off")
}

func (g *ggufReader) fixed(n int) []byte {
	b := g.buf[:n]
	if g.err != nil {
		clear(b)
		return b
	}
	if _, err := io.ReadFull(g.r, b); err != nil {
		g.readFailed(err)
		clear(b)
	}
	g.left -= int64(n)
	return b
}

func (g *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(g.fixed(4)) }
func (g *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(g.fixed(8)) }

func (g *ggufReader) skip(n uint64) {
	if g.err != nil {
		return
	}
	if n > uint64(g.left) {
		g.fail("the header is cut off")
		return
	}
	for left := int64(n); left > 0; {
		step := min(left, 1<<30) // Discard takes an int
		if _, err := g.r.Discard(int(step)); err != nil {
			g.readFailed(err)
			return
		}
		left -= step
	}
	g.left -= int64(n)
}

// text reads a string of at most limit bytes.
func (g *ggufReader) text(limit uint64) string {
	n := g.u64()
	if g.err == nil && n > limit {
		g.fail("a name of %d bytes", n)
	}
	return g.textOf(n)
}

func (g *ggufReader) textOf(n uint64) string {
	if g.err != nil {
		return ""
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(g.r, b); err != nil {
		g.readFailed(err)
	}
	g.left -= int64(n)
	return string(b)
}

// template reads a chat template.
func (g *ggufReader) template() templateForm {
	n := g.u64()
	if n > maxTemplate {
		g.skip(n)
		return templateForm{there: true}
	}
	return templateFormOf(g.textOf(n))
}

func (g *ggufReader) header(size int64) (ggufHeader, error) {
	if magic := g.fixed(4); g.err == nil && string(magic) != "GGUF" {
		g.fail("doesn't begin with GGUF")
	}
	if v := g.u32(); g.err == nil && v != 2 && v != 3 {
		g.fail("version %d, want 2 or 3", v)
	}
	tensors, pairs := g.u64(), g.u64()
	if tensors > maxTensors || pairs > maxPairs {
		g.fail("%d tensors and %d pairs are too many", tensors, pairs)
	}
	meta := g.pairs(pairs)
	spans := make([]tensorSpan, 0, min(tensors, 4096))
	for range tensors {
		if g.err != nil {
			return ggufHeader{}, g.err
		}
		name, span := g.tensor()
		spans = append(spans, span)
		meta.Classifier = meta.Classifier || name == "cls.weight" || name == "cls.output.weight"
	}
	if g.err == nil {
		g.checkExtents(spans, size-g.left, size, meta.align)
	}
	if g.err != nil {
		return ggufHeader{}, g.err
	}
	meta.Tensors, meta.SlotBytes = int(tensors), g.slot.bytes
	return meta.ggufHeader, nil
}

type ggufMetadata struct {
	ggufHeader
	align uint64
}

func (g *ggufReader) pairs(n uint64) ggufMetadata {
	m := ggufMetadata{align: defaultAlign}
	contexts, poolings, causal := byArchitecture{}, byArchitecture{}, byArchitecture{}
	var toolTemplate templateForm
	for range n {
		if g.err != nil {
			return m
		}
		key := g.text(maxKeyBytes)
		kind := g.u32()
		switch {
		case key == "general.architecture" && kind == ggufString:
			m.Architecture = g.text(maxShortString)
		case key == "general.type" && kind == ggufString:
			m.Type = g.text(maxShortString)
		case key == "general.file_type" && kind == ggufUint32:
			m.Quantization = quantizationNames[g.u32()]
		case key == "general.alignment" && kind == ggufUint32:
			m.align = uint64(g.u32())
		case key == templateKey && kind == ggufString:
			m.Template = g.template()
		case key == toolTemplateKey && kind == ggufString:
			toolTemplate = g.template()
		case key == loraAlphaKey && kind == ggufFloat32:
			g.slot.alpha = math.Float32frombits(g.u32())
		case kind == ggufUint32 && contexts.takes(key, contextKey):
			contexts.set(key, contextKey, g.u32())
		case kind == ggufUint32 && poolings.takes(key, poolingKey):
			poolings.set(key, poolingKey, g.u32())
		case kind == ggufBool && causal.takes(key, causalKey):
			causal.set(key, causalKey, uint32(g.fixed(1)[0]))
		default:
			g.skipValue(kind)
		}
	}
	if m.align == 0 || m.align&(m.align-1) != 0 || m.align > 1<<20 {
		g.fail("alignment %d is not a power of two", m.align)
	}
	if g.err == nil && m.Architecture == "" {
		g.fail("general.architecture is missing")
	}
	m.TrainContext, m.Pooling = int(contexts[m.Architecture]), int(poolings[m.Architecture])
	isCausal, told := causal[m.Architecture]
	m.LooksAhead = encoderArchitectures[m.Architecture] || told && isCausal == 0
	m.Template.tools = m.Template.tools || toolTemplate.tools
	return m
}

// encoderArchitectures look ahead whatever the file says.
var encoderArchitectures = map[string]bool{
	"bert": true, "nomic-bert": true, "nomic-bert-moe": true, "jina-bert-v2": true, "jina-bert-v3": true, "neo-bert": true,
	"eurobert": true, "modern-bert": true, "gemma-embedding": true,
}

// byArchitecture are the values of keys that begin with an architecture.
type byArchitecture map[string]uint32

func (b byArchitecture) takes(key, suffix string) bool {
	return strings.HasSuffix(key, suffix) && len(b) < maxPerSuffix
}

func (b byArchitecture) set(key, suffix string, value uint32) {
	b[strings.TrimSuffix(key, suffix)] = value
}

// Value types of GGUF that need special care.
const (
	ggufUint32  = 4
	ggufFloat32 = 6
	ggufBool    = 7
	ggufString  = 8
	ggufArray   = 9
)

var ggufSizes = [...]uint64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

// skipValue skips a value of this type.
func (g *ggufReader) skipValue(kind uint32) {
	switch {
	case kind == ggufString:
		g.skip(g.u64())
	case kind == ggufArray:
		g.skipArray()
	case kind < uint32(len(ggufSizes)) && ggufSizes[kind] > 0:
		g.skip(ggufSizes[kind])
	default:
		g.fail("value type %d is unknown", kind)
	}
}

func (g *ggufReader) skipArray() {
	kind, n := g.u32(), g.u64()
	if g.err != nil {
		return
	}
	switch {
	case kind == ggufString:
		for range n {
			g.skip(g.u64())
			if g.err != nil {
				return
			}
		}
	case kind < uint32(len(ggufSizes)) && ggufSizes[kind] > 0:
		if n > uint64(g.left) {
			g.fail("an array of %d values is larger than the file", n)
			return
		}
		g.skip(n * ggufSizes[kind])
	default:
		g.fail("array of type %d is unknown", kind)
	}
}

// tensorSpan is where a tensor's data lies, counted from the start of the data.
type tensorSpan struct{ offset, bytes uint64 }

func (g *ggufReader) tensor() (string, tensorSpan) {
	name := g.text(maxTensorName)
	dims := g.u32()
	if g.err == nil && (dims == 0 || dims > maxDims) {
		g.fail("tensor %.64q has %d dimensions", name, dims)
	}
	if g.err != nil {
		return "", tensorSpan{}
	}
	elements, shape := uint64(1), [maxDims]uint64{1, 1, 1, 1}
	for i := range dims {
		d := g.u64()
		shape[i] = d
		if d == 0 || elements > math.MaxInt64/d {
			g.fail("tensor %.64q has an impossible shape", name)
			return "", tensorSpan{}
		}
		elements *= d
	}
	row, kind := shape[0], g.u32()
	g.slot.add(name, shape, kind)
	s := tensorSpan{offset: g.u64()}
	block, known := tensorBlockSizes[kind]
	if !known { // newer than this table: the library will check it
		return name, s
	}
	if row%block.elements != 0 {
		g.fail("tensor %.64q: rows of %d values don't fit blocks of %d", name, row, block.elements)
		return name, s
	}
	blocks := elements / block.elements
	if blocks > math.MaxInt64/block.bytes {
		g.fail("tensor %.64q has an impossible size", name)
		return name, s
	}
	s.bytes = blocks * block.bytes
	return name, s
}

// checkExtents checks that every tensor lies between the end of the header and the end of the file.
func (g *ggufReader) checkExtents(spans []tensorSpan, headerBytes, size int64, align uint64) {
	start := (uint64(headerBytes) + align - 1) / align * align
	if len(spans) > 0 && start > uint64(size) {
		g.fail("the file ends with its header")
		return
	}
	room := uint64(size) - min(start, uint64(size))
	for i, s := range spans {
		if s.offset%align != 0 {
			g.fail("tensor %d isn't aligned", i)
			return
		}
		if s.offset > room || s.bytes > room-s.offset {
			g.fail("tensor %d ends %d bytes into the data, the file has %d: it is cut off", i, s.offset+s.bytes, room)
			return
		}
	}
}

// tensorBlockSizes is the block of each tensor type of llama.cpp, by the type's number.
var tensorBlockSizes = map[uint32]struct{ elements, bytes uint64 }{
	0: {1, 4}, 1: {1, 2}, 2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34},
	10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292},
	16: {256, 66}, 17: {256, 74}, 18: {256, 98}, 19: {256, 50}, 20: {32, 18}, 21: {256, 110}, 22: {256, 82}, 23: {256, 136},
	24: {1, 1}, 25: {1, 2}, 26: {1, 4}, 27: {1, 8}, 28: {1, 8}, 29: {256, 56}, 30: {1, 2},
	34: {256, 54}, 35: {256, 66}, 39: {32, 17},
}
