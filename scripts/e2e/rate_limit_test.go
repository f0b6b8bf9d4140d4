package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/scripts/launch"
	"tandem/scripts/redis"
)

func TestRateLimitAdmitsExactlyItsNumber(t *testing.T) {
	onceWithMock(t)
	s := startServer(t, "RATE_LIMIT=5/minute")
	statuses := make(chan int, 20)
	for range 20 {
		go func() {
			a, err := s.infer(t.Context(), question("What is the capital of France?", "v1.0"))
			if err != nil {
				statuses <- 0
				return
			}
			if a.Status == 429 && a.Header.Get("Retry-After") == "" {
				statuses <- -1
				return
			}
			statuses <- a.Status
		}()
	}
	got := map[int]int{}
	for range 20 {
		got[<-statuses]++
	}
	if got[200] != 5 || got[429] != 15 {
		t.Errorf("statuses: %v, want 5 × 200 and 15 × 429 with Retry-After", got)
	}
}

// startReplicas starts proxies with a mock engine each; settings name the store in which they all count.
func startReplicas(t *testing.T, n int, settings ...string) (replicas []*testServer) {
	t.Helper()
	for range n {
		replicas = append(replicas, startServer(t, append([]string{"ENGINE_MOCK=true"}, settings...)...))
	}
	return replicas
}

// countStatuses sends n requests to each replica, all at once, and counts the statuses that each returned.
func countStatuses(t *testing.T, replicas []*testServer, n int) []map[int]int {
	t.Helper()
	got := make([]map[int]int, len(replicas))
	var mu sync.Mutex
	var clients sync.WaitGroup
	start := make(chan struct{})
	for i, s := range replicas {
		got[i] = make(map[int]int)
		for range n {
			clients.Go(func() {
				<-start
				a, err := s.infer(t.Context(), question("What is the capital of France?", "v1.0"))
				if err != nil {
					t.Errorf("no answer: %v", err)
					return
				}
				if (a.Status == http.StatusTooManyRequests) != (a.Header.Get("Retry-After") != "") {
					t.Errorf("%d with Retry-After %q", a.Status, a.Header.Get("Retry-After"))
				}
				mu.Lock()
				defer mu.Unlock()
				got[i][a.Status]++
			})
		}
	}
	close(start)
	clients.Wait()
	return got
}

func (s *testServer) waitForStore(up float64) {
	s.t.Helper()
	s.waitFor(failureLimit, fmt.Sprintf("llm_rate_limit_store_up %v", up), func() bool { return s.scrape().sum("llm_rate_limit_store_up") == up })
}

func TestReplicasAdmitTheLimitTogether(t *testing.T) {
	onceWithMock(t)
	const n = 50
	r := redis.Start(t)
	replicas := startReplicas(t, 2, fmt.Sprintf("RATE_LIMIT=%d/hour", n), "RATE_LIMIT_STORE="+r.URL(), "RATE_LIMIT_STORE_TIMEOUT=10s")
	got := countStatuses(t, replicas, 2*n)
	if admitted, refused := got[0][200]+got[1][200], got[0][429]+got[1][429]; admitted != n || refused != 3*n {
		t.Errorf("%d of %d simultaneous requests passed and %d got 429, want %d and %d: %v", admitted, 4*n, refused, n, 3*n, got)
	}
	for i, s := range replicas {
		if scraped := s.scrape(); scraped.sum("llm_rate_limit_decisions_total") != 2*n || scraped.sum("llm_rate_limit_store_up") != 1 {
			t.Errorf("proxy %d: %v decisions, store up %v", i, scraped.sum("llm_rate_limit_decisions_total"), scraped.sum("llm_rate_limit_store_up"))
		}
	}
}

func TestReplicasGoOnWithoutTheirStoreAndRejoin(t *testing.T) {
	onceWithMock(t)
	const n, used = 10, 4
	r := redis.Start(t)
	replicas := startReplicas(t, 2, fmt.Sprintf("RATE_LIMIT=%d/hour", n), "RATE_LIMIT_STORE="+r.URL(), "RATE_LIMIT_STORE_TIMEOUT=10s")
	for i, got := range countStatuses(t, replicas, used) {
		if got[200] != used {
			t.Fatalf("proxy %d: %v", i, got)
		}
	}
	r.Kill()
	for i, got := range countStatuses(t, replicas, 4*n) {
		if got[200] != n-used || got[429] != 4*n-(n-used) {
			t.Errorf("without the store proxy %d, which had let %d of %d pass: %v", i, used, n, got)
		}
	}
	for i, s := range replicas {
		s.waitForStore(0)
		s.waitFor(failureLimit, fmt.Sprintf("line of proxy %d that its store is away", i), func() bool {
			log := s.proxy.log.String()
			return strings.Contains(log, "the store of the rate limits is away") && strings.Contains(log, r.Address)
		})
	}
	r.Restart()
	for i, s := range replicas {
		s.waitForStore(1)
		s.waitFor(failureLimit, fmt.Sprintf("line of proxy %d that its store is back", i), func() bool {
			return strings.Contains(s.proxy.log.String(), "the store of the rate limits answers again")
		})
	}
	got := countStatuses(t, replicas, 2*n) // the store came back empty
	if passed := got[0][200] + got[1][200]; passed != n {
		t.Errorf("with the store back %d passed, want %d: %v", passed, n, got)
	}
}

func TestARefusalForWantOfAnEngineCostsNothingInTheStore(t *testing.T) {
	onceWithMock(t)
	r := redis.Start(t)
	s := newServer(t, "RATE_LIMIT=2/hour", "RATE_LIMIT_STORE="+r.URL(), "RATE_LIMIT_STORE_TIMEOUT=10s", "ENGINE_WAIT=10ms", "ENGINE_MOCK=true")
	s.startProxy()
	s.waitProxyAnswers()
	for range 5 {
		if a := s.mustInfer(question("Hi", "v1.0")); a.Status != 503 || a.Header.Get("X-Ratelimit-Remaining-Requests") != "2" {
			t.Fatalf("%d, remaining %q: %s", a.Status, a.Header.Get("X-Ratelimit-Remaining-Requests"), a.Body)
		}
	}
	s.startEngine()
	s.waitReady(failureLimit)
	if got := countStatuses(t, []*testServer{s}, 8)[0]; got[200] != 2 || got[429] != 6 {
		t.Errorf("after five refusals: %v", got)
	}
}

// The store's certificate is checked: while its issuer isn't trusted the proxy counts by itself.
func TestTheStoreByTLS(t *testing.T) {
	onceWithMock(t)
	cert, key := certificate(t)
	port := fmt.Sprint(launch.FreePort(t))
	redis.Start(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no", "--requirepass", "s3cret")
	store := "RATE_LIMIT_STORE=rediss://:s3cret@127.0.0.1:" + port
	for _, c := range []struct {
		authority string
		up        float64
	}{{cert, 1}, {os.DevNull, 0}} {
		s := newServer(t, "RATE_LIMIT=5/hour", store, "SSL_CERT_FILE="+c.authority)
		s.startProxy()
		s.waitProxyAnswers()
		s.waitForStore(c.up)
		if c.up == 0 {
			s.waitFor(failureLimit, "line about the certificate", func() bool { return strings.Contains(s.proxy.log.String(), "certificate") })
		}
		if log := s.proxy.log.String(); strings.Contains(log, "s3cret") {
			t.Errorf("log with the authority %s:\n%s", c.authority, log)
		}
	}
}

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
