package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tandem/engine/models"
	"tandem/schema/settings"
)

// Config is the engine's settings. schema/settings/settings_table.go describes each.
type Config struct {
	Values   *settings.Values // where each value came from
	Warnings []string         // probable mistakes, for the log

	LogLevel  slog.Level
	LogJSON   bool
	LogSample int // one in so many

	TraceCollector string // base URL; empty: no spans
	TraceService   string
	TraceRatio     float64

	Socket       string
	DrainDelay   time.Duration
	DrainTimeout time.Duration
	StallTimeout time.Duration
	PromptBytes  int

	ModelsDir       string
	FollowLinks     bool   // out of ModelsDir
	CacheDir        string // empty: none could be found
	BackendDir      string
	Demo            DemoMode
	DefaultModel    string
	DefaultModelSet bool // somebody set it; otherwise another may take its place (settings.DefaultModel)
	DefaultVersion  string
	CacheSize       int
	Preload         []string // model, model@version or default
	MemoryWatermark float64  // share of a device's memory
	LoadTimeout     time.Duration
	LoadStall       time.Duration
	BusyWait        time.Duration

	Context            int // tokens
	Parallel           int // sequences
	KVCells            int // of one base at most; 0: by the device
	MicroBatch         int // tokens of one pass
	Attention          models.Attention
	BatchTokens        int // prompt tokens of a step
	StepTarget         time.Duration
	Threads            int // 0: as many as may be used
	Deterministic      bool
	Device             string    // auto, cpu, or the name of a backend or device
	GPULayers          int       // negative: all
	GPUSplit           []float32 // empty: by free memory
	OneGPU             bool      // MainGPU alone
	MainGPU            int
	BackendSampling    string // auto, on or off
	MMap               bool
	GrammarTokenBudget time.Duration

	Mock           bool
	MockTokenDelay time.Duration
	MockLoadDelay  time.Duration
	MockFailLoad   []string // model or model@version
	MockMemoryUsed float64  // share; 0: no gauges
	AbortMarker    string   // of a prompt that ends the process
	AbortLoads     []string // model or model@version whose load ends the process
	StepDelay      time.Duration
}

// DemoMode is when the built-in demo model is offered.
type DemoMode string

// Demo modes; auto offers it while no model is installed.
const (
	DemoAuto  DemoMode = "auto"
	DemoTrue  DemoMode = "true"
	DemoFalse DemoMode = "false"
)

// loadConfig reads the engine's settings. Errors are settings.ErrHelp, settings.ErrVersion or a list of all problems.
func loadConfig(args, environ []string) (*Config, error) {
	v, err := settings.Load(settings.Engine, args, environ, os.ReadFile)
	if v == nil {
		return nil, err
	}
	c := &Config{Values: v, Warnings: v.Warnings()}
	c.readProcess(v)
	c.readModels(v)
	c.readCompute(v)
	if err := settings.Check(err, c.check()); err != nil {
		return nil, err
	}
	return c, nil
}

// check finds settings that are valid but don't fit together.
func (c *Config) check() []settings.Problem {
	var found []settings.Problem
	if wrong, ok := errors.AsType[*models.AttentionError](c.Attention.Check()); ok {
		found = append(found, c.Values.Problem(wrong.Variable(), wrong.Text))
	}
	if c.Deterministic && c.Attention.Flash == models.FlashOff {
		found = append(found, c.Values.Problem("FLASH_ATTENTION", "off doesn't fit DETERMINISTIC=true: only flash attention adds up in the order of positions"))
	}
	if c.namesDevice() && c.GPULayers == 0 {
		found = append(found, c.Values.Problem("DEVICE", fmt.Sprintf("%s would compute nothing with GPU_LAYERS=0; DEVICE=cpu leaves all to the CPU", c.Device)))
	}
	return found
}

// problem is the error for a setting that turns out to be wrong after all are read.
func (c *Config) problem(env, text string) error {
	return &settings.Error{Problems: []settings.Problem{c.Values.Problem(env, text)}}
}

// namesDevice reports whether the settings insist on an accelerator.
func (c *Config) namesDevice() bool {
	return !strings.EqualFold(c.Device, "auto") && !strings.EqualFold(c.Device, "cpu")
}

func (c *Config) readProcess(v *settings.Values) {
	c.LogJSON, c.LogSample = v.String("LOG_FORMAT") == "json", v.Int("LOG_SAMPLE")
	c.TraceCollector, c.TraceService, c.TraceRatio = v.String("OTEL_EXPORTER_OTLP_ENDPOINT"), v.String("OTEL_SERVICE_NAME"), v.Float("OTEL_TRACES_SAMPLER_ARG")
	if err := c.LogLevel.UnmarshalText([]byte(v.String("LOG_LEVEL"))); err != nil {
		c.LogLevel = slog.LevelInfo
	}
	c.Socket, c.StallTimeout = v.String("ENGINE_SOCKET"), v.Duration("ENGINE_STALL_TIMEOUT")
	c.DrainDelay, c.DrainTimeout = v.Duration("DRAIN_DELAY"), v.Duration("DRAIN_TIMEOUT")
	c.PromptBytes = int(v.Bytes("PROMPT_MAX"))
}

func (c *Config) readModels(v *settings.Values) {
	c.ModelsDir, c.CacheDir, c.BackendDir = v.String("MODELS_DIR"), v.String("CACHE_DIR"), v.String("BACKEND_DIR")
	c.FollowLinks = v.Bool("MODELS_FOLLOW_LINKS")
	if c.CacheDir == "" {
		c.CacheDir = userCacheDir()
	}
	if c.BackendDir == "" {
		c.BackendDir = besideProgram("lib")
	}
	c.Demo = DemoMode(v.String("DEMO_MODEL"))
	c.DefaultModel, c.DefaultModelSet = v.String("DEFAULT_MODEL"), v.IsSet("DEFAULT_MODEL")
	c.DefaultVersion, c.CacheSize, c.Preload = v.String("DEFAULT_VERSION"), v.Int("CACHE_SIZE"), v.List("PRELOAD")
	c.MemoryWatermark = v.Float("MEMORY_HIGH_WATERMARK")
	c.LoadTimeout, c.LoadStall, c.BusyWait = v.Duration("MODEL_LOAD_WAIT"), v.Duration("MODEL_LOAD_STALL"), v.Duration("MODEL_BUSY_WAIT")
}

func (c *Config) readCompute(v *settings.Values) {
	c.Context, c.Parallel, c.BatchTokens = v.Int("CONTEXT"), v.Int("PARALLEL"), v.Int("BATCH_TOKENS")
	c.KVCells, c.MicroBatch = v.Int("KV_CELLS"), v.Int("MICRO_BATCH")
	c.Attention = readAttention(v)
	c.StepTarget, c.Threads, c.Deterministic = v.Duration("STEP_TARGET"), v.Int("THREADS"), v.Bool("DETERMINISTIC")
	c.Device, c.GPULayers, c.MainGPU, c.MMap = v.String("DEVICE"), v.Int("GPU_LAYERS"), v.Int("MAIN_GPU"), v.Bool("MMAP")
	c.BackendSampling = v.String("BACKEND_SAMPLING")
	c.GrammarTokenBudget = v.Duration("GRAMMAR_TOKEN_BUDGET")
	for _, share := range v.List("GPU_SPLIT") {
		if share == "none" {
			c.OneGPU = true
		} else if f, err := strconv.ParseFloat(share, 32); err == nil {
			c.GPUSplit = append(c.GPUSplit, float32(f))
		}
	}
	c.Mock, c.MockTokenDelay = v.Bool("ENGINE_MOCK"), v.Duration("MOCK_TOKEN_DELAY")
	c.AbortMarker, c.AbortLoads = cmp.Or(v.String("ABORT_MARKER"), v.String("MOCK_ABORT_MARKER")), v.List("ABORT_LOAD")
	c.MockFailLoad, c.MockLoadDelay, c.MockMemoryUsed = v.List("MOCK_FAIL_LOAD"), v.Duration("MOCK_LOAD_DELAY"), v.Float("MOCK_MEMORY_USED")
	c.StepDelay = v.Duration("STEP_DELAY")
}

func readAttention(v *settings.Values) models.Attention {
	return models.Attention{
		KeyType: models.CacheType(v.String("CACHE_TYPE_K")), ValueType: models.CacheType(v.String("CACHE_TYPE_V")),
		Flash: models.FlashAttention(v.String("FLASH_ATTENTION")), Layout: models.KVLayout(v.String("KV_LAYOUT")),
		Rope: models.RopeScaling{
			Type: models.RopeType(v.String("ROPE_SCALING")), Factor: float32(v.Float("ROPE_FACTOR")), FreqScale: float32(v.Float("ROPE_FREQ_SCALE")),
			OriginalContext: v.Int("ROPE_ORIGINAL_CONTEXT"), FreqBase: float32(v.Float("ROPE_FREQ_BASE")),
		},
	}
}

// userCacheDir is the directory for files that can be made again, or empty where there is no home.
func userCacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "tandem")
}

// besideProgram is a path in the directory of this program, never in the working directory.
func besideProgram(name string) string {
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	return filepath.Join(filepath.Dir(program), name)
}
