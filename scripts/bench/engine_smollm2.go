package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// benchSmolLM2 is benchEngineThroughput with a real model. Prompts are sent without a chat template, as to
// llama-server's /completion.
func benchSmolLM2() error {
	file := os.Getenv("SMOLLM2")
	if file == "" {
		return errors.New("SMOLLM2 names no model; scripts/models/fetch.sh smollm2 prints the path of one")
	}
	dir := filepath.Join(envOr("BENCH_DIR", filepath.Join(os.TempDir(), "tandem-bench")), "real", "smollm2")
	model := filepath.Join(dir, "model.gguf")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "model.yaml"), []byte("template: off\n"), 0o644); err != nil {
		return err
	}
	if err := linkOrCopyModel(file, model); err != nil {
		return err
	}
	return compareWithLlamaServer(model, storyPrompt)
}

// linkOrCopyModel links a file to another path, or copies it where that can't be done.
func linkOrCopyModel(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}

// storyPrompt returns a text of about 64 tokens that a chat model continues. Prompts differ from the start, so that no
// prefix is shared.
func storyPrompt(i int) string {
	things := [...]string{"sea", "forest", "city", "desert", "river", "mountain", "garden"}
	return fmt.Sprintf("%d days ago a traveller came to the %s. She had walked for a long time, and the people who lived there asked her what she had "+
		"seen on her way. She sat down by the fire, drank a cup of tea, and began to tell them everything, slowly and in great detail:", 2+i, things[i%len(things)])
}
