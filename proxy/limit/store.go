package limit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

const (
	storePrefix    = "tandem:limit:"
	probeKey       = storePrefix + "probe"
	connectTimeout = time.Second
	silenceTimeout = 3 * time.Second // after which a connection that says nothing is given up
	storeBuffer    = 16 << 10        // bytes, to read and to write
)

//go:embed gcra.lua
var gcra string

// script is sent once a server, and called by its hash from then on.
var script = rueidis.NewLuaScript(gcra)

// store is a Redis or Valkey server. One connection serves all callers: what they ask at the same time travels together.
type store struct {
	client  rueidis.Client
	address string // without user and password
	timeout time.Duration
}

// openStore prepares the connection. A server that doesn't answer yet is no error.
func openStore(url string, timeout time.Duration) (*store, error) {
	o, err := rueidis.ParseURL(url)
	if err != nil || len(o.InitAddress) != 1 {
		return nil, errors.New("the store's address must be like redis://user:password@host:6379/0") // the error may hold the password
	}
	o.ForceSingleClient = true // nothing is asked about clusters
	o.PipelineMultiplex = -1   // one connection
	o.DisableCache, o.DisableRetry = true, true
	o.ReadBufferEachConn, o.WriteBufferEachConn = storeBuffer, storeBuffer
	o.Dialer.Timeout, o.ConnWriteTimeout = connectTimeout, silenceTimeout
	o.ClientName, o.ClientSetInfo = "tandem-proxy", rueidis.DisableClientSetInfo
	client, err := rueidis.NewClient(o) // which dials, and with a single server gives a client even when that fails
	if client == nil {
		return nil, fmt.Errorf("open the store %s: %w", o.InitAddress[0], err)
	}
	return &store{client: client, address: o.InitAddress[0], timeout: timeout}, nil
}

// take counts one request of id; giveBack takes one back. Both are one round trip, and end after the timeout.
func (s *store) take(id string, rate Rate) (Decision, error) {
	return s.count(storeKey(id, rate), rate, "1")
}
func (s *store) giveBack(id string, rate Rate) (Decision, error) {
	return s.count(storeKey(id, rate), rate, "-1")
}

// storeKey has the rate in it, so that proxies that disagree about the rate of an id don't count in one bucket.
func storeKey(id string, rate Rate) string { return storePrefix + rate.String() + ":" + id }

func (s *store) count(key string, rate Rate, requests string) (Decision, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	args := []string{strconv.FormatInt(int64(rate.interval()), 10), strconv.FormatInt(int64(rate.burst()), 10), requests}
	got, err := script.Exec(ctx, s.client, []string{key}, args).AsIntSlice()
	if err != nil {
		return Decision{}, fmt.Errorf("count in the store: %w", err)
	}
	if len(got) != 2 {
		return Decision{}, fmt.Errorf("count in the store: it answered with %d numbers", len(got))
	}
	d := rate.decision(got[0] == 1, time.Duration(got[1]))
	d.Shared = true
	return d, nil
}

// probe finds out whether a request could be counted, and connects if need be.
func (s *store) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := s.client.Do(ctx, s.client.B().Ping().Build()).Error(); err != nil {
		return fmt.Errorf("reach the store: %w", err)
	}
	_, err := s.count(probeKey, Rate{Requests: MaxRequests, Unit: time.Second}, "1")
	return err
}

func (s *store) name() string { return s.address }
func (s *store) close()       { s.client.Close() }
