// Package top shows the figures of /status/live of a running server in a terminal: it is the command top.
package top

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"tandem/proxy/server"
)

const (
	interval       = time.Second
	requestTimeout = 5 * time.Second // of one request
	maxReplyBytes  = 4 << 20         // of one reply
)

// View shows the figures of one server.
type View struct {
	url    string
	styled bool
	client *http.Client
}

// New makes a view of the server at url, which ends without a slash. styled adds colours. Close must be called in the
// end.
func New(url string, styled bool) *View {
	return &View{url: url, styled: styled, client: &http.Client{Timeout: requestTimeout}}
}

// Close closes the connections to the server.
func (v *View) Close() { v.client.CloseIdleConnections() }

// Once writes one screen.
func (v *View) Once(ctx context.Context, out io.Writer) error {
	screen, err := v.screen(ctx)
	if err != nil {
		return err
	}
	_, err = out.Write(screen)
	return err
}

// Follow writes a screen each second until ctx ends: in a terminal over the one before, otherwise after it with an
// empty line between. While the server can't be reached the error is shown instead, since it may come back.
func (v *View) Follow(ctx context.Context, out io.Writer, terminal bool) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		screen, err := v.screen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			screen = fmt.Appendf(nil, "%s\n", err)
		}
		if terminal {
			screen = overdraw(screen)
		} else {
			screen = append(screen, '\n')
		}
		if _, err := out.Write(screen); err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (v *View) screen(ctx context.Context) ([]byte, error) {
	live, err := v.fetch(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	v.render(&b, live)
	return b.Bytes(), nil
}

func (v *View) fetch(ctx context.Context) (*server.LiveStatus, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/status/live", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", v.url, err)
	}
	reply, err := v.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxReplyBytes))
	if err != nil {
		return nil, fmt.Errorf("read figures of %s: %w", v.url, err)
	}
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/status/live answers %s", v.url, reply.Status)
	}
	live := new(server.LiveStatus)
	if err := json.Unmarshal(body, live); err != nil {
		return nil, errors.Join(fmt.Errorf("%s/status/live isn't that of a tandem-proxy", v.url), err)
	}
	return live, nil
}

// overdraw makes a screen replace the one before it.
func overdraw(screen []byte) []byte {
	lines := bytes.ReplaceAll(screen, []byte("\n"), []byte(ansiClearLine+"\n"))
	return slices.Concat([]byte(ansiHome), lines, []byte(ansiClearBelow))
}
