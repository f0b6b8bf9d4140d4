package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	scrapeRounds   = 6 // of each kind
	scrapeStreams  = 32
	scrapeTokens   = 256
	scrapeInterval = time.Second
)

// benchScrapes compares the gaps between the events of a stream, as clients see them, without and with a scrape each
// second, in alternating rounds.
func benchScrapes() error { return withMockEngine(eventInterval.String(), benchScrapeGaps) }

func benchScrapeGaps(s *tandemServer) error {
	words := func(i int) string { return fmt.Sprintf("%d %s", i, repeatWords(scrapeTokens)) }
	t := tandemTarget(s.url, "demo", scrapeTokens, words, `,"stream":true`)
	if _, err := allStreamGaps(t); err != nil { // warm up
		return err
	}
	gaps := make(map[bool][]float64)
	scrapes := 0
	for range scrapeRounds {
		for _, scraped := range []bool{false, true} {
			stop := func() (int, error) { return 0, nil }
			if scraped {
				stop = scrapeEachSecond(s.url + "/prometheus")
			}
			round, err := allStreamGaps(t)
			n, scrapeErr := stop()
			if err := firstError(err, scrapeErr); err != nil {
				return err
			}
			scrapes += n
			gaps[scraped] = append(gaps[scraped], round...)
		}
	}
	fmt.Printf("gaps between events, %d streams, %d alternated rounds each, %d scrapes in all\n", scrapeStreams, scrapeRounds, scrapes)
	for _, scraped := range []bool{false, true} {
		sorted := slices.Sorted(slices.Values(gaps[scraped]))
		at := func(share float64) float64 { return sorted[int(share*float64(len(sorted)-1))] }
		fmt.Printf("  scraped %-5v  %d gaps: p50 %.2f, p90 %.2f, p99 %.2f, p99.9 %.2f ms\n", scraped, len(sorted), at(0.5), at(0.9), at(0.99), at(0.999))
	}
	return nil
}

// allStreamGaps runs all streams once and returns the gaps between the events of each, in milliseconds.
func allStreamGaps(t target) ([]float64, error) {
	var mu sync.Mutex
	var all []float64
	var failure error
	var group sync.WaitGroup
	for i := range scrapeStreams {
		group.Go(func() {
			gaps, err := streamGapsOf(t, i)
			mu.Lock()
			defer mu.Unlock()
			all, failure = append(all, gaps...), firstError(failure, err)
		})
	}
	group.Wait()
	if len(all) == 0 {
		failure = firstError(failure, errNothingMeasured)
	}
	return all, failure
}

func streamGapsOf(t target, i int) ([]float64, error) {
	req, err := newRequest(t, i)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("stream: status %d", resp.StatusCode)
	}
	var gaps []float64
	var last time.Time
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), []byte("data: ")) {
			continue
		}
		now := time.Now()
		if !last.IsZero() {
			gaps = append(gaps, float64(now.Sub(last).Microseconds())/1e3)
		}
		last = now
	}
	return gaps, lines.Err()
}

// scrapeEachSecond scrapes as Prometheus does until stop, which returns how often.
func scrapeEachSecond(url string) (stop func() (int, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n, failure := 0, error(nil)
	go func() {
		defer close(ended)
		tick := time.NewTicker(scrapeInterval)
		defer tick.Stop()
		for ctx.Err() == nil && failure == nil {
			failure = scrapeOnce(url)
			n++
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return func() (int, error) {
		cancel()
		<-ended
		return n, failure
	}
}

func scrapeOnce(url string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("scrape: status %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
