// Command bench-gpu tries everything on a machine with a GPU and writes what it saw, as a table and as JSON: answers,
// seeds, kills under load, memory, the card's own figures, and tokens/s beside llama-server. It needs neither network
// nor Go there: `make pack-gpu` makes a directory to take along, `make bench-gpu` packs and runs it here.
//
// Each part is a process of its own with a time limit. What hangs, fails or dies in one leaves the others alone, and
// what a part measured before that counts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var version = "unknown" // set by the linker

// options are the flags, which a part's process gets as well.
type options struct {
	programs      string // directory of tandem-proxy, tandem-engine, capitals.tsv and lib; empty: that of this program
	out           string // directory of what is written
	device        string // DEVICE of the engine
	cudaLibraries string
	shapes        []string
	streams       []int
	tokens        int // of an answer
	questions     int // about capitals, of each version of the demo model
	within        time.Duration
	parts         []string // empty: all
	part, rows    string   // of a part's process
	limit         time.Duration
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-gpu:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.part != "" {
		return runPart(ctx, o)
	}
	return runAll(ctx, o)
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench-gpu", flag.ContinueOnError)
	quick := f.Bool("quick", false, "a small shape, few streams and questions: a rehearsal")
	f.StringVar(&o.programs, "programs", "", "directory of the programs; empty: that of this one")
	f.StringVar(&o.out, "out", "results", "directory of results, logs and models")
	f.StringVar(&o.device, "device", "cuda", "DEVICE of the engine")
	f.StringVar(&o.cudaLibraries, "cuda-libraries", "", "directory of libcudart and libcublas, if they aren't found")
	f.DurationVar(&o.within, "within", 7*time.Minute+40*time.Second, "time for all parts together")
	f.IntVar(&o.tokens, "tokens", 128, "tokens of an answer whose speed is measured")
	f.IntVar(&o.questions, "questions", 194, "questions to each version of the demo model")
	shapes := f.String("shapes", "1b,8b", "shapes of the random models: tiny, 1b, 8b")
	streams := f.String("streams", "1,2,4,8,16,32,64,128", "numbers of streams at once")
	parts := f.String("parts", "", "parts to run; empty: all ("+strings.Join(partNames(), ",")+")")
	f.StringVar(&o.part, "part", "", "for its own use: the part to run")
	f.StringVar(&o.rows, "rows", "", "for its own use: the file of what the part finds")
	f.DurationVar(&o.limit, "limit", 0, "for its own use: when the part's process is killed")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if *quick {
		set := map[string]bool{}
		f.Visit(func(g *flag.Flag) { set[g.Name] = true })
		for name, value := range map[string]string{"shapes": "tiny", "streams": "1,4", "tokens": "8", "questions": "6", "within": "1m"} {
			if !set[name] {
				_ = f.Set(name, value) // they are good
			}
		}
	}
	o.shapes = strings.Split(*shapes, ",")
	for _, text := range strings.Split(*streams, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 256 {
			return nil, fmt.Errorf("-streams %s: %q is no number from 1 to 256", *streams, text)
		}
		o.streams = append(o.streams, n)
	}
	if *parts != "" {
		o.parts = strings.Split(*parts, ",")
	}
	for _, name := range o.parts {
		if !slices.Contains(partNames(), name) {
			return nil, fmt.Errorf("-parts %s: there is no part %q", *parts, name)
		}
	}
	return o, nil
}

// args are the flags of a part's process.
func (o *options) args(part, rows string, limit time.Duration) []string {
	return []string{"-programs", o.programs, "-out", o.out, "-device", o.device, "-tokens", strconv.Itoa(o.tokens),
		"-questions", strconv.Itoa(o.questions), "-shapes", strings.Join(o.shapes, ","), "-streams", o.streamList(),
		"-part", part, "-rows", rows, "-limit", limit.String()}
}

func (o *options) streamList() string {
	var list []string
	for _, n := range o.streams {
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ",")
}

// runAll runs the parts and writes the results after each.
func runAll(ctx context.Context, o *options) error {
	began := time.Now()
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if o.programs == "" {
		o.programs = filepath.Dir(self)
	}
	for _, path := range []*string{&o.programs, &o.out} { // servers run elsewhere
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	r := newResults(o)
	if err := r.takeOver(o.out); err != nil {
		return fmt.Errorf("keep the results of an earlier run: %w", err)
	}
	if err := o.dropModelsOfOthers(); err != nil {
		return fmt.Errorf("remove the models of another build: %w", err)
	}
	r.Notes = linkCUDALibraries(filepath.Join(o.programs, "lib"), o.cudaLibraries)
	runner := &runner{results: r, deadline: began.Add(o.within), self: self, arguments: o.args, out: o.out, settle: settleTime}
	found, err := runner.run(ctx, o.chosen())
	return errors.Join(err, failure(found))
}
