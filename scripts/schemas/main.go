//go:build llama

// Command schemas measures constrained output with JSON schemas and known instances: do the masks allow the valid
// instances and forbid the invalid ones, and how long do they take? It runs no model, only the vocabulary of one.
//
//	schemas -model FILE.gguf [-strict] [-v] FILE…
//
// A file holds one JSON object a line, {"name": …, "schema": …, "tests": [{"valid": …, "data": …}]}, .xz or not, or is
// one of the JSON Schema Test Suite: a list of {"description": …, "schema": …, "tests": …}. Exit status 1: an invalid
// instance was taken; with -strict also when a valid one was refused. An answer's members keep the order of the schema,
// and a whole number is never written 1.0: on purpose, although some valid instances of the suite are impossible then.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"tandem/engine/llama"
)

func main() {
	model := flag.String("model", "", "GGUF `file` whose vocabulary is used")
	strict := flag.Bool("strict", false, "fail when a valid instance is refused, too")
	verbose := flag.Bool("v", false, "name every schema that is refused or judged wrongly")
	flag.Parse()
	if *model == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	wrong, err := run(*model, flag.Args(), *strict, *verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(2)
	}
	if wrong {
		os.Exit(1)
	}
}

func run(model string, files []string, strict, verbose bool) (wrong bool, err error) {
	vocabulary, err := llama.OpenVocabulary(model)
	if err != nil {
		return false, err
	}
	defer vocabulary.Close()
	e := evaluation{vocabulary: vocabulary, verbose: verbose, refusalsByKeyword: make(map[string]int)}
	for _, file := range files {
		cases, err := readCases(file)
		if err != nil {
			return false, fmt.Errorf("read %s: %w", file, err)
		}
		for _, c := range cases {
			if err := e.evaluate(c); err != nil {
				return false, fmt.Errorf("%s: %s: %w", filepath.Base(file), c.Name, err)
			}
		}
	}
	e.report(os.Stdout)
	return e.invalidAccepted > 0 || strict && e.validRejected > 0, nil
}
