package models

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Defaults are a model's own sampling defaults; nil: the model sets none.
type Defaults struct {
	Temperature      *float32 `yaml:"temperature"`
	TopP             *float32 `yaml:"top_p"`
	TopK             *int     `yaml:"top_k"` // 0: off
	MinP             *float32 `yaml:"min_p"`
	RepeatPenalty    *float32 `yaml:"repeat_penalty"`
	PresencePenalty  *float32 `yaml:"presence_penalty"`
	FrequencyPenalty *float32 `yaml:"frequency_penalty"`
	PenaltyWindow    *int     `yaml:"penalty_window"` // tokens
	MaxNewTokens     *int     `yaml:"max_new_tokens"`
}

// maxModelYAMLBytes bounds model.yaml, in bytes.
const maxModelYAMLBytes = 64 << 10

// modelYAML is model.yaml.
type modelYAML struct {
	Description string `yaml:"description"`
	Domain      string `yaml:"domain"`
	// File is that of the weights, in the model's directory; empty: model.gguf, or the only GGUF file.
	File           string `yaml:"file"`
	DefaultVersion string `yaml:"default_version"`
	Template       string `yaml:"template"` // auto, on, off
	Pooling        string `yaml:"pooling"`  // mean, cls, last, rank; empty: as the weights' file says
	// The next five are of Attention; empty: the engine's settings.
	CacheTypeK     string                 `yaml:"cache_type_k"`
	CacheTypeV     string                 `yaml:"cache_type_v"`
	FlashAttention string                 `yaml:"flash_attention"` // auto, on, off
	KVLayout       string                 `yaml:"kv_layout"`       // auto, unified, streams
	RopeScaling    *yamlRope              `yaml:"rope_scaling"`
	Defaults       Defaults               `yaml:"defaults"`
	Checksums      map[string]string      `yaml:"checksums"` // file in the model's directory → sha256, hexadecimal
	Versions       map[string]yamlVersion `yaml:"versions"`
}

// yamlVersion is an entry of versions: a full model that is a version.
type yamlVersion struct {
	File string `yaml:"file"` // in the model's directory
}

var (
	yamlPrefix = regexp.MustCompile(`^yaml: (unmarshal errors:\n\s*)?`)
	yamlType   = regexp.MustCompile(` not found in type \S+`)
)

// parseModelYAML reads model.yaml strictly: an unknown or repeated key, a wrong type and a value out of range are
// errors that name the line or the key.
func parseModelYAML(text []byte) (modelYAML, error) {
	var m modelYAML
	if len(text) > maxModelYAMLBytes {
		return m, fmt.Errorf("model.yaml has %d bytes, at most %d are allowed", len(text), maxModelYAMLBytes)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		msg := yamlPrefix.ReplaceAllString(err.Error(), "")
		return modelYAML{}, fmt.Errorf("model.yaml: %s", yamlType.ReplaceAllString(msg, " is not a known key"))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return modelYAML{}, errors.New("model.yaml: more than one document")
	}
	if err := m.check(); err != nil {
		return modelYAML{}, fmt.Errorf("model.yaml: %w", err)
	}
	return m, nil
}

func (m *modelYAML) check() error {
	if len(m.Description) > 1000 {
		return errors.New("description is longer than 1000 bytes")
	}
	if m.Domain != "" && !validNamePart(m.Domain) {
		return fmt.Errorf("domain %.100q: %w", m.Domain, errBadName)
	}
	if _, err := m.template(); err != nil {
		return err
	}
	if _, err := parsePooling(m.Pooling); err != nil {
		return err
	}
	if err := m.attention().Check(); err != nil {
		return err
	}
	if err := checkYAMLFileName("file", m.File); m.File != "" && err != nil {
		return err
	}
	for name, v := range m.Versions {
		if err := checkVersion(name); err != nil {
			return err
		}
		if err := checkYAMLFileName("versions."+name+".file", v.File); err != nil {
			return err
		}
	}
	for file, sum := range m.Checksums {
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
			return fmt.Errorf("checksums.%.100s: must be a sha256 in hexadecimal", file)
		}
		m.Checksums[file] = strings.ToLower(sum)
	}
	return m.Defaults.check()
}

// checkYAMLFileName returns an error unless the value of key in model.yaml may be this file.
func checkYAMLFileName(key, file string) error {
	if !filepath.IsLocal(file) {
		return fmt.Errorf("%s %.100q: must name a file in the model's directory", key, file)
	}
	if _, _, ok := ggufStem(file); !ok {
		return fmt.Errorf("%s %.100q: must end with .gguf or .gguf.xz", key, file)
	}
	return nil
}

func (m *modelYAML) template() (TemplateMode, error) {
	switch m.Template {
	case "", "auto":
		return TemplateAuto, nil
	case "on", "true": // YAML 1.1 tools write on as true
		return TemplateOn, nil
	case "off", "false":
		return TemplateOff, nil
	}
	return TemplateAuto, fmt.Errorf("template %.100q: must be auto, on or off", m.Template)
}

func (d *Defaults) check() error {
	floats := []struct {
		name     string
		value    *float32
		min, max float32
	}{
		{"temperature", d.Temperature, 0, 100},
		{"top_p", d.TopP, 0, 1},
		{"min_p", d.MinP, 0, 1},
		{"repeat_penalty", d.RepeatPenalty, 0.01, 100},
		{"presence_penalty", d.PresencePenalty, -100, 100},
		{"frequency_penalty", d.FrequencyPenalty, -100, 100},
	}
	for _, f := range floats {
		if f.value != nil && !(*f.value >= f.min && *f.value <= f.max) { // NaN fails too
			return fmt.Errorf("defaults.%s is %v, must be %v to %v", f.name, *f.value, f.min, f.max)
		}
	}
	ints := []struct {
		name     string
		value    *int
		min, max int
	}{
		{"top_k", d.TopK, 0, 1 << 20},
		{"penalty_window", d.PenaltyWindow, 0, 1 << 20},
		{"max_new_tokens", d.MaxNewTokens, 1, 1 << 20},
	}
	for _, i := range ints {
		if i.value != nil && (*i.value < i.min || *i.value > i.max) {
			return fmt.Errorf("defaults.%s is %d, must be %d to %d", i.name, *i.value, i.min, i.max)
		}
	}
	return nil
}
