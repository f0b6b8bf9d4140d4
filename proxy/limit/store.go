package limit

import (
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	storePrefix    = "tandem:limit:"
	probeKey       = storePrefix + "probe"
	connectTimeout = time.Second
	connections    = 64               // at a time; further requests wait for one within their timeout
	idleTimeout    = 30 * time.Second // before anybody between us and the server forgets the connection
)

//go:embed gcra.lua
var gcra string

// script is sent once a server, and called by its hash from then on.
var script = redis.NewScript(1, gcra)

// store is a Redis or Valkey server.
type store struct {
	at      storeAddress
	timeout time.Duration
	pool    atomic.Pointer[redis.Pool] // only probe changes it
}

// storeAddress is a URL taken apart.
type storeAddress struct {
	network, address string
	host             string // for TLS; empty: without
	user, password   string
	db               int
}

// parseStore reads redis, rediss (TLS), valkey and valkeys://[user:password@]host[:port][/db] and unix://[user:password@]/path[?db=n].
// Its error says nothing of the text, which may hold a password.
func parseStore(text string) (storeAddress, error) {
	bad := errors.New("the store's address must be like redis://user:password@host:6379/0")
	u, err := url.Parse(text)
	if err != nil || u.Fragment != "" {
		return storeAddress{}, bad
	}
	query := u.Query()
	number := query.Get("db")
	query.Del("db")
	at := storeAddress{network: "tcp", user: u.User.Username()}
	at.password, _ = u.User.Password()
	switch u.Scheme {
	case "rediss", "valkeys":
		at.host = u.Hostname()
		fallthrough
	case "redis", "valkey":
		port := u.Port()
		if port == "" {
			port = "6379"
		}
		at.address = net.JoinHostPort(u.Hostname(), port)
		if path := strings.TrimPrefix(u.Path, "/"); path != "" {
			number = path
		}
	case "unix":
		at.network, at.address = "unix", u.Path
	default:
		return storeAddress{}, bad
	}
	if number != "" {
		if at.db, err = strconv.Atoi(number); err != nil {
			return storeAddress{}, bad
		}
	}
	if len(query) > 0 {
		return storeAddress{}, bad
	}
	return at, nil
}

// openStore prepares the connections; none is made yet.
func openStore(text string, timeout time.Duration) (*store, error) {
	at, err := parseStore(text)
	if err != nil {
		return nil, err
	}
	s := &store{at: at, timeout: timeout}
	s.pool.Store(s.newPool())
	return s, nil
}

func (s *store) newPool() *redis.Pool {
	return &redis.Pool{DialContext: s.at.connect, MaxIdle: connections, MaxActive: connections, Wait: true, IdleTimeout: idleTimeout}
}

// connect ends with ctx.
func (a storeAddress) connect(ctx context.Context) (redis.Conn, error) {
	var dial = (&net.Dialer{}).DialContext
	if a.host != "" {
		dial = (&tls.Dialer{Config: &tls.Config{ServerName: a.host, MinVersion: tls.VersionTLS12}}).DialContext
	}
	return redis.DialContext(ctx, a.network, a.address, redis.DialContextFunc(dial), redis.DialUsername(a.user), redis.DialPassword(a.password), redis.DialDatabase(a.db))
}

// take counts one request of id; giveBack takes one back. Both are one round trip, and end after the timeout.
func (s *store) take(id string, rate Rate) (Decision, error) {
	return s.count(storeKey(id, rate), rate, 1)
}

func (s *store) giveBack(id string, rate Rate) (Decision, error) {
	return s.count(storeKey(id, rate), rate, -1)
}

// storeKey has the rate in it, so that proxies that disagree about the rate of an id don't count in one bucket.
func storeKey(id string, rate Rate) string { return storePrefix + rate.String() + ":" + id }

func (s *store) count(key string, rate Rate, requests int) (Decision, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	conn, err := s.pool.Load().GetContext(ctx)
	if err != nil {
		return Decision{}, fmt.Errorf("connect to the store: %w", err)
	}
	defer conn.Close()
	return ask(ctx, conn, key, rate, requests)
}

func ask(ctx context.Context, conn redis.Conn, key string, rate Rate, requests int) (Decision, error) {
	got, err := redis.Int64s(script.DoContext(ctx, conn, key, int64(rate.interval()), int64(rate.burst()), requests))
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

// probe finds out whether a request could be counted. Where that fails it tries once more with a new connection: the others may be left
// from a server that was restarted.
func (s *store) probe(ctx context.Context) error {
	if s.tryOnce(ctx) == nil {
		return nil
	}
	if old := s.pool.Swap(s.newPool()); old != nil {
		_ = old.Close() // what is in use ends by itself
	}
	return s.tryOnce(ctx)
}

func (s *store) tryOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := s.pool.Load().GetContext(ctx)
	if err != nil {
		return fmt.Errorf("connect to the store: %w", err)
	}
	defer conn.Close()
	ctx, cancel = context.WithTimeout(ctx, s.timeout) // from here on, as long as a request would wait
	defer cancel()
	_, err = ask(ctx, conn, probeKey, Rate{Requests: MaxRequests, Unit: time.Second}, 1)
	return err
}

func (s *store) name() string { return s.at.address }
func (s *store) close()       { _ = s.pool.Load().Close() }
