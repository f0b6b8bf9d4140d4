package link

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
	"tandem/schema/wire"
)

// reportStats sends the executor's statistics whenever they changed, at most every statsInterval, and once a second in
// any case.
func (s *session) reportStats() {
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	var last []batch.BaseStats
	var sent time.Time
	for {
		stats := s.link.o.Executor.Stats()
		if now := time.Now(); sent.IsZero() || now.Sub(sent) >= statsHeartbeat || !slices.Equal(stats, last) {
			if s.conn.Send(func(f schema.Frame) error { return s.link.writeStats(f, stats) }) != nil {
				return
			}
			last, sent = stats, now
		}
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reportCatalog sends what is installed and loaded, first and whenever it changes.
func (s *session) reportCatalog() {
	for {
		changed := s.link.o.Catalog.Changes()
		if s.sendCatalog() != nil {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-changed:
		case <-s.loadedChanged:
		}
	}
}

// sendCatalog sends what is installed and loaded now.
func (s *session) sendCatalog() error {
	s.reportMu.Lock()
	err := s.conn.Send(s.link.writeCatalog)
	s.reportMu.Unlock()
	if errors.Is(err, wire.ErrTooLarge) { // the proxy keeps the list it has
		s.link.o.Log.Error("the proxy isn't told what is installed: install fewer models and versions", "err", err)
		return nil
	}
	return err
}

func (s *session) sendPong() error {
	heartbeats := s.link.heartbeats()
	_ = s.conn.SendControl(func(f schema.Frame) error { // the reader notices a lost connection
		pong, err := f.NewPong()
		if err != nil {
			return err
		}
		list, err := pong.NewBeats(int32(len(heartbeats)))
		if err != nil {
			return err
		}
		return writeHeartbeats(list, heartbeats)
	})
	return nil
}

// Heartbeat is the state of the executor or of a load.
type Heartbeat struct {
	Name    string
	Phase   string
	Counter uint64
	Age     time.Duration // since Counter moved
	Budget  time.Duration // an older age means hung
}

// Heartbeats returns the heartbeats that the proxy gets.
func (l *Link) Heartbeats() []Heartbeat { return l.heartbeats() }

func (l *Link) heartbeats() []Heartbeat {
	e := l.o.Executor.Heartbeat()
	list := []Heartbeat{{Name: l.o.Hello.Device, Phase: phaseName(e.Phase), Counter: e.Counter, Age: e.Age, Budget: e.Budget}}
	for _, load := range l.o.Models.Loads() {
		list = append(list, Heartbeat{
			Name: "load " + load.Model + "@" + load.Version, Phase: load.Phase, Counter: load.Counter, Age: load.Age, Budget: l.o.LoadStall,
		})
	}
	return list
}

func phaseName(p batch.Phase) string {
	switch p {
	case batch.PhaseIdle:
		return "idle"
	case batch.PhaseStep:
		return "step"
	case batch.PhaseCall:
		return "call"
	case batch.PhaseFirstStep:
		return "first step"
	}
	return "unknown"
}

func writeHeartbeats(to schema.Beat_List, heartbeats []Heartbeat) error {
	for i, b := range heartbeats {
		out := to.At(i)
		out.SetCounter(b.Counter)
		out.SetAgeNs(nanos(b.Age))
		out.SetBudgetNs(nanos(b.Budget))
		w := fieldWriter{}
		w.text(out.SetExecutor, b.Name)
		w.text(out.SetPhase, b.Phase)
		if w.err != nil {
			return w.err
		}
	}
	return nil
}

func (l *Link) writeStats(f schema.Frame, stats []batch.BaseStats) error {
	to, err := f.NewStats()
	if err != nil {
		return err
	}
	bases, err := to.NewBases(int32(len(stats)))
	if err != nil {
		return err
	}
	for i, b := range stats {
		out := bases.At(i)
		if err := out.SetModel(models.ModelOfKey(b.Base)); err != nil {
			return err
		}
		out.SetFreeSequences(uint32(max(b.FreeSequences, 0)))
		out.SetSequences(uint32(b.Sequences))
		out.SetPrefilling(uint32(b.Prefilling))
		out.SetDecoding(uint32(b.Decoding))
		out.SetWaiting(uint32(b.Waiting))
		out.SetFreeCells(uint32(max(b.FreeCells, 0)))
		out.SetCells(uint32(b.Cells))
	}
	heartbeats := l.heartbeats()
	list, err := to.NewExecutors(int32(len(heartbeats)))
	if err != nil {
		return err
	}
	return writeHeartbeats(list, heartbeats)
}

func (l *Link) writeCatalog(f schema.Frame) error {
	to, err := f.NewCatalog()
	if err != nil {
		return err
	}
	to.SetCacheSize(uint32(l.o.Models.Size()))
	entries := l.o.Models.Entries()
	loaded, err := to.NewLoaded(int32(len(entries)))
	if err != nil {
		return err
	}
	facts := make(map[string]models.Facts) // of what is loaded, with the shortest context
	for i, e := range entries {
		if err := writeLoaded(loaded.At(i), e); err != nil {
			return err
		}
		if n := e.Facts.ContextTokens; n > 0 && (facts[e.Model].ContextTokens == 0 || n < facts[e.Model].ContextTokens) {
			facts[e.Model] = e.Facts
		}
	}
	snapshot := l.o.Catalog.Snapshot()
	list, err := to.NewModels(int32(len(snapshot)))
	if err != nil {
		return err
	}
	for i := range snapshot {
		known := facts[snapshot[i].Name]
		if known.ContextTokens == 0 {
			known.ContextTokens = l.o.Models.ContextBeforeLoad(&snapshot[i])
		}
		if err := writeModel(list.At(i), &snapshot[i], known); err != nil {
			return err
		}
	}
	return nil
}

func writeLoaded(to schema.Loaded, e models.Entry) error {
	to.SetBytes(uint64(max(e.Bytes, 0)))
	to.SetLoading(e.Loading)
	w := fieldWriter{}
	w.text(to.SetModel, e.Model)
	w.text(to.SetVersion, e.Version)
	if w.err != nil || e.Loading {
		return w.err
	}
	facts, err := to.NewFacts()
	if err != nil {
		return err
	}
	return writeFacts(facts, &e.Facts)
}

// writeModel describes a model by its files' headers and, where they say nothing, by what is known of it.
func writeModel(to schema.Model, m *models.Model, known models.Facts) error {
	to.SetContextTokens(uint32(known.ContextTokens))
	to.SetBytes(uint64(max(m.Bytes, 0)))
	w := fieldWriter{}
	w.text(to.SetArchitecture, cmp.Or(m.Architecture, known.Architecture))
	w.text(to.SetQuantization, cmp.Or(m.Quantization, known.Quantization))
	w.text(to.SetName, m.Name)
	w.text(to.SetDescription, m.Description)
	w.text(to.SetDomain, m.Domain)
	w.text(to.SetDefaultVersion, m.DefaultVersion)
	if w.err != nil {
		return w.err
	}
	if m.Abilities != nil {
		abilities, err := to.NewAbilities()
		if err != nil {
			return err
		}
		writeAbilities(abilities, m.Abilities)
	}
	versions, err := to.NewVersions(int32(len(m.Versions)))
	if err != nil {
		return err
	}
	for i, v := range m.Versions {
		w.text(versions.At(i).SetName, v.Name)
		w.text(versions.At(i).SetProblem, v.Problem)
	}
	return w.err
}

func writeFacts(to schema.Facts, f *models.Facts) error {
	to.SetContextTokens(uint32(f.ContextTokens))
	to.SetCells(uint32(f.Cells))
	to.SetSequences(uint32(f.Sequences))
	to.SetWeightBytes(uint64(max(f.WeightBytes, 0)))
	to.SetCacheBytes(uint64(max(f.CacheBytes, 0)))
	to.SetEmbeddingSize(uint32(f.EmbeddingSize))
	writeAbilities(to, &f.Abilities)
	to.SetFlashAttention(f.KV.Flash)
	w := fieldWriter{}
	w.text(to.SetArchitecture, f.Architecture)
	w.text(to.SetQuantization, f.Quantization)
	w.text(to.SetBackend, f.Backend)
	w.text(to.SetCellsLimit, f.CellsLimit)
	w.text(to.SetCacheTypeK, string(f.KV.KeyType))
	w.text(to.SetCacheTypeV, string(f.KV.ValueType))
	w.text(to.SetKvLayout, string(f.KV.Layout))
	w.text(to.SetSampling, string(f.Sampling.Place))
	w.text(to.SetSamplingDecidedBy, f.Sampling.DecidedBy)
	if w.err != nil {
		return w.err
	}
	return writeMemory(to, f.Memory)
}

func writeAbilities(to schema.Facts, a *models.Abilities) {
	to.SetChatTemplate(a.ChatTemplate)
	to.SetTools(a.Tools)
	to.SetReasoning(a.Reasoning)
	to.SetEmbeddings(a.Embeddings)
	to.SetScores(a.Scores)
	to.SetGenerates(!a.EncoderOnly)
}

func writeMemory(to schema.Facts, memory []models.DeviceMemory) error {
	list, err := to.NewMemory(int32(len(memory)))
	if err != nil {
		return err
	}
	for i, m := range memory {
		list.At(i).SetWeightBytes(uint64(max(m.WeightBytes, 0)))
		list.At(i).SetCacheBytes(uint64(max(m.CacheBytes, 0)))
		list.At(i).SetComputeBytes(uint64(max(m.ComputeBytes, 0)))
		list.At(i).SetAdapterBytes(uint64(max(m.AdapterBytes, 0)))
		if err := list.At(i).SetDevice(m.Device); err != nil {
			return err
		}
	}
	return nil
}

// eventKinds returns the schema's kind; both list them in the same order.
var eventKinds = map[models.EventKind]schema.EventKind{
	models.EventLoading:    schema.EventKind_loading,
	models.EventProgress:   schema.EventKind_progress,
	models.EventLoaded:     schema.EventKind_loaded,
	models.EventLoadFailed: schema.EventKind_loadFailed,
	models.EventEvicted:    schema.EventKind_evicted,
}

func writeEvent(f schema.Frame, e *models.Event) error {
	to, err := f.NewEvent()
	if err != nil {
		return err
	}
	to.SetKind(eventKinds[e.Kind])
	to.SetRatio(float32(e.Progress.Ratio))
	to.SetTookNs(nanos(e.Took))
	to.SetBytes(uint64(max(e.Bytes, 0)))
	w := fieldWriter{}
	w.text(to.SetModel, e.Model)
	w.text(to.SetVersion, e.Version)
	w.text(to.SetPhase, e.Progress.Phase)
	w.text(to.SetReason, e.Reason)
	w.text(to.SetText, e.Message)
	if w.err != nil || e.Kind != models.EventLoaded {
		return w.err
	}
	facts, err := to.NewFacts()
	if err != nil {
		return err
	}
	return writeFacts(facts, &e.Facts)
}
