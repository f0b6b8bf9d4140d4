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
	storeKeyPrefix    = "tandem:limit:"
	probeKey          = storeKeyPrefix + "probe"
	connectTimeout    = time.Second
	silentConnTimeout = 3 * time.Second // after which a connection without an answer is closed
	connBufferBytes   = 16 << 10        // for each connection, to read and to write
)

//go:embed gcra.lua
var gcraSource string

// gcraScript is sent once to a server, and called by its hash from then on.
var gcraScript = rueidis.NewLuaScript(gcraSource)

// redisStore is a Redis or Valkey server. One connection serves all callers and pipelines their commands.
type redisStore struct {
	client  rueidis.Client
	address string // without user and password
	timeout time.Duration
}

// openStore prepares the connection. It is no error if the server doesn't answer yet.
func openStore(url string, timeout time.Duration) (*redisStore, error) {
	o, err := rueidis.ParseURL(url)
	if err != nil || len(o.InitAddress) != 1 {
		// the error may hold the password
		return nil, errors.New("the store's address must be like redis://user:password@host:6379/0")
	}
	o.ForceSingleClient = true // no commands about clusters
	o.PipelineMultiplex = -1   // one connection
	o.DisableCache, o.DisableRetry = true, true
	o.ReadBufferEachConn, o.WriteBufferEachConn = connBufferBytes, connBufferBytes
	o.Dialer.Timeout, o.ConnWriteTimeout = connectTimeout, silentConnTimeout
	o.ClientName, o.ClientSetInfo = "tandem-proxy", rueidis.DisableClientSetInfo
	client, err := rueidis.NewClient(o) // which dials, and with a single server gives a client even when that fails
	if client == nil {
		return nil, fmt.Errorf("open the store %s: %w", o.InitAddress[0], err)
	}
	return &redisStore{client: client, address: o.InitAddress[0], timeout: timeout}, nil
}

// take counts n of id if they are allowed; correct counts n more in any case, or takes -n back. Both are one round
// trip, and end at the latest after the timeout.
func (s *redisStore) take(id string, rate Rate, n int) (Decision, error) {
	return s.runScript(storeKey(id, rate), rate, n, "0")
}
func (s *redisStore) correct(id string, rate Rate, n int) (Decision, error) {
	return s.runScript(storeKey(id, rate), rate, n, "1")
}

// storeKey has the rate in it, so that proxies that disagree about the rate of an id don't count in one bucket.
func storeKey(id string, rate Rate) string { return storeKeyPrefix + rate.String() + ":" + id }

func (s *redisStore) runScript(key string, rate Rate, n int, always string) (Decision, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	args := []string{strconv.FormatInt(int64(rate.interval()), 10), strconv.FormatInt(int64(rate.fillTime()), 10), strconv.Itoa(n), always}
	got, err := gcraScript.Exec(ctx, s.client, []string{key}, args).AsIntSlice()
	if err != nil {
		return Decision{}, fmt.Errorf("count in the store: %w", err)
	}
	if len(got) != 2 {
		return Decision{}, fmt.Errorf("count in the store: it answered with %d numbers", len(got))
	}
	d := rate.decision(got[0] == 1, n, time.Duration(got[1]))
	d.CountedInStore = true
	return d, nil
}

// probe finds out whether a request could be counted, and connects if need be.
func (s *redisStore) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := s.client.Do(ctx, s.client.B().Ping().Build()).Error(); err != nil {
		return fmt.Errorf("reach the store: %w", err)
	}
	_, err := s.runScript(probeKey, Rate{Requests: MaxRequests, Unit: time.Second}, 1, "0")
	return err
}

func (s *redisStore) name() string { return s.address }
func (s *redisStore) close()       { s.client.Close() }
