package cluster

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

const (
	// An engine with these settings computes at most 4 sequences of a token each 100 ms, and waits most of that time,
	// so that several of them share the processors of one node.
	replicaParallel  = 4
	replicaStepDelay = 100 * time.Millisecond
	// replicaClients keep three replicas busy.
	replicaClients = 5 * replicaParallel
	// measured is how long each measurement takes.
	measured = 20 * time.Second
)

// TestReplicas measures what one, two and three replicas answer, with and without the death of one engine's container.
func TestReplicas(t *testing.T) {
	var one float64
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			d := deploy(t, fmt.Sprintf("replicas-%d", n), variant{replicas: n, engine: map[string]string{
				"STEP_DELAY": replicaStepDelay.String(), "PARALLEL": fmt.Sprint(replicaParallel),
			}})
			undisturbed, s := d.answersPerSecond(t, func() {})
			if s.failures() > 0 {
				t.Errorf("undisturbed clients: %v", s)
			}
			if n == 1 {
				one = undisturbed
			}
			if least := one * (1 + 0.6*float64(n-1)); undisturbed < least {
				t.Errorf("%d replicas answer %.1f requests a second, at least %.1f: one answers %.1f", n, undisturbed, least, one)
			}
			victim := d.pods(t)[0]
			withDeath, s := d.answersPerSecond(t, func() {
				victim.signal(t, syscall.SIGKILL, supervisorCommand...)
				d.readyAgain(t, victim.Metadata.Name, engineName, 1, startTimeout)
			})
			for kind := range s.failed {
				if n > 1 || kind != "connection refused" {
					t.Errorf("clients while the engine's container of one of %d replicas is killed: %v", n, s)
				}
			}
			record(fmt.Sprintf("replicas: %d; %d clients for %v", n, replicaClients, measured), "no failed request; with one replica only new connections",
				"%.1f answers a second; %.1f when one engine's container is killed: %v", undisturbed, withDeath, s)
		})
	}
}

// answersPerSecond runs clients that take a new connection for each request, so that the Service spreads them, and does
// something meanwhile. Answers that come after the measured time don't count.
func (d *deployment) answersPerSecond(t *testing.T, meanwhile func()) (float64, summary) {
	t.Helper()
	load := d.startLoad(t, capitalRequest, 0, replicaClients)
	over := time.After(measured)
	meanwhile()
	<-over
	s := load.end()
	n := 0
	for _, o := range load.outcomes {
		if o.kind == answered && o.began+o.took <= measured {
			n++
		}
	}
	return float64(n) / measured.Seconds(), s
}
