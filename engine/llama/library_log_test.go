//go:build llama

package llama

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"tandem/engine/models"
)

// logRecorder is a slog handler that keeps the records' levels and messages.
type logRecorder struct {
	mu   sync.Mutex // guards all
	all  []string
	from slog.Level
}

func (l *logRecorder) Enabled(_ context.Context, level slog.Level) bool { return level >= l.from }

func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logRecorder) WithGroup(string) slog.Handler { return l }

func (l *logRecorder) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r.Level.String()+" "+r.Message)
	return nil
}

func TestTheLibrarysLogArrivesAtItsLevel(t *testing.T) {
	for _, from := range []slog.Level{slog.LevelInfo, slog.LevelError} {
		kept := &logRecorder{from: from}
		b, _ := newBackend(t, func(o *Options) { o.Logger = slog.New(kept) })
		loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
		_, err := b.LoadBase(t.Context(), models.BaseSpec{Name: "broken", Path: demoFile(t, "demo-lora-v1.0.gguf")}, nil)
		if err == nil {
			t.Fatal("a LoRA was loaded as a model")
		}
		text := strings.Join(kept.all, "\n")
		if strings.Contains(text, "ERROR ") || strings.Contains(text, "\n.") {
			t.Errorf("from %s on: what the error says is logged besides, or lines of dots:\n%.2000s", from, text)
		}
		if !strings.Contains(err.Error(), "error loading model") {
			t.Errorf("the error doesn't say what the library said: %v", err)
		}
		if informed := strings.Contains(text, "INFO "); informed != (from == slog.LevelInfo) {
			t.Errorf("from %s on: information is there: %v", from, informed)
		}
		if strings.Contains(text, "DEBUG ") {
			t.Errorf("from %s on: debug lines are there", from)
		}
	}
	New(Options{BackendDir: backendDir(t), OnDevice: newTestExecutor(t).do, Logger: slog.New(slog.DiscardHandler)})
}

func TestLevelsOfTheLibrarysLines(t *testing.T) {
	for line, want := range map[string]slog.Level{
		"llama_adapter_lora_init_impl: lora for 'blk.2.attn_k.weight' cannot use buft 'AMX', fallback to CPU": slog.LevelDebug,
		"llama_context: n_ctx_seq (512) > n_ctx_train (256)":                                                  slog.LevelWarn,
	} {
		if got := levelOf(ggmlWarn, line); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}
