package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"tandem/scripts/launch"
)

const peerName = "llama-server"

// peer is llama-server with a model.
type peer struct {
	url     string
	process *launch.Process
	log     *launch.Log
	leave   func() bool
}

// startPeer starts llama-server with a model on the devices that Tandem takes for it.
func (b *bench) startPeer(ctx context.Context, shape string, devices []string, more ...string) (*peer, error) {
	ports, err := launch.FreePorts(1)
	if err != nil {
		return nil, err
	}
	if devices == nil {
		devices = []string{"none"} // the word for the CPU
	}
	args := append([]string{"--host", "127.0.0.1", "--port", fmt.Sprint(ports[0]), "-m", b.modelPath(shape), "-ngl", "999",
		"-dev", strings.Join(devices, ","), "-t", fmt.Sprint(runtime.NumCPU()), "--no-webui"}, more...)
	lib := filepath.Join(b.programs, "lib") // where it looks for its backends, too
	p := &peer{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), log: &launch.Log{}}
	fmt.Fprintf(os.Stderr, "---- %s %s\n", peerName, strings.Join(args, " "))
	// The driver's library may lie where the machine's own variable says, and there alone.
	env := environment("LD_LIBRARY_PATH=" + strings.TrimSuffix(lib+":"+os.Getenv("LD_LIBRARY_PATH"), ":"))
	if p.process, err = launch.Start(peerName, filepath.Join(lib, peerName), env, p.log, args...); err != nil {
		return nil, err
	}
	p.leave = killAfter(ctx, p.process)
	err = poll(ctx, func() (bool, error) {
		select {
		case <-p.process.Ended():
			return false, fmt.Errorf("it ended: %s", complaints(p.log.String()))
		default:
		}
		return isOK(ctx, http.DefaultClient, p.url+"/health"), nil
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *peer) stop() {
	p.leave()
	_ = p.process.Stop(stopLimit) // how it ends is of no interest here
	fmt.Fprint(os.Stderr, p.log.String())
}

// checkOffload fails unless llama-server has the whole model on devices: without them it computes on the CPU and says
// so in a log that it doesn't write unless it is asked for. The server that is measured isn't asked: it would write a
// line for each slot at each request.
func (b *bench) checkOffload(ctx context.Context, shape string, devices []string) error {
	p, err := b.startPeer(ctx, shape, devices, "-np", "1", "-c", "512", "-lv", "4")
	if err != nil {
		return err
	}
	p.stop() // the log is whole then
	return offloaded(p.log.String())
}

var offload = regexp.MustCompile(`offloaded (\d+)/(\d+) layers to GPU`)

func offloaded(log string) error {
	switch found := offload.FindStringSubmatch(log); {
	case found == nil:
		return errors.New("its log doesn't say that layers are on a GPU")
	case found[1] != found[2]:
		return fmt.Errorf("it has %s of %s layers on a GPU", found[1], found[2])
	}
	return nil
}

// theirSpeed measures llama-server. Where it can't be measured nothing failed, since it is there to compare with; but a
// comparison with one that computes elsewhere would be false.
func (b *bench) theirSpeed(ctx context.Context, shape string, devices []string) error {
	if _, err := os.Stat(filepath.Join(b.programs, "lib", peerName)); err != nil {
		b.note("%s: llama-server isn't among the programs", shape)
		return nil
	}
	if len(devices) > 0 {
		if err := b.checkOffload(ctx, shape, devices); err != nil {
			return fmt.Errorf("%s: llama-server isn't compared: it doesn't compute on %s as Tandem does: %w", shape, strings.Join(devices, ","), err)
		}
	}
	if err := b.theirSpeeds(ctx, shape, devices); err != nil {
		b.note("%s: llama-server isn't measured: %s", shape, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return ctx.Err()
}

// theirSpeeds starts llama-server with nothing set but the devices and the sizes that the work needs.
func (b *bench) theirSpeeds(ctx context.Context, shape string, devices []string) error {
	const cellsOfStream = 512
	streams := slices.Max(b.streams)
	began := time.Now()
	p, err := b.startPeer(ctx, shape, devices, "-np", fmt.Sprint(streams), "-c", fmt.Sprint(streams*cellsOfStream))
	if err != nil {
		return err
	}
	defer p.stop()
	b.add(shape, "start", "s", peerName, time.Since(began).Seconds())
	a := asked{model: shape}
	target := a.target(peerName, p.url)
	if err := b.warm(ctx, target); err != nil {
		return err
	}
	var failed []error
	for _, n := range b.streams {
		failed = append(failed, b.speed(ctx, target, a, n, peerName))
	}
	return errors.Join(failed...)
}
