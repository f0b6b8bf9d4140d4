package metrics

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// histogramBuckets are a histogram: cumulative counts at edges, the last of which may be infinite.
type histogramBuckets struct {
	edges  []float64
	counts []float64
	count  float64
	sum    float64
}

func (b *histogramBuckets) add(h *dto.Histogram) {
	if b.edges == nil {
		b.edges = make([]float64, len(h.Bucket))
		b.counts = make([]float64, len(h.Bucket))
		for i, bucket := range h.Bucket {
			b.edges[i] = bucket.GetUpperBound()
		}
	}
	for i, bucket := range h.Bucket {
		b.counts[i] += float64(bucket.GetCumulativeCount())
	}
	b.count += float64(h.GetSampleCount())
	b.sum += h.GetSampleSum()
}

func (b histogramBuckets) clone() histogramBuckets {
	b.counts = slices.Clone(b.counts)
	return b
}

// minus returns what was observed since old, which has the same edges or is still empty.
func (b histogramBuckets) minus(old histogramBuckets) histogramBuckets {
	d := histogramBuckets{edges: b.edges, counts: slices.Clone(b.counts), count: b.count - old.count, sum: b.sum - old.sum}
	for i := range old.counts {
		d.counts[i] -= old.counts[i]
	}
	return d
}

func (b histogramBuckets) mean() Number { return Number(b.sum / b.count) }

// quantile interpolates within a bucket, as histogram_quantile of Prometheus does.
func (b histogramBuckets) quantile(q float64) Number {
	if b.count <= 0 {
		return Missing()
	}
	rank := q * b.count
	low, below := 0.0, 0.0
	for i, edge := range b.edges {
		if math.IsInf(edge, 1) {
			break
		}
		if in := b.counts[i] - below; b.counts[i] >= rank && in > 0 {
			return Number(low + (edge-low)*(rank-below)/in)
		}
		low, below = edge, b.counts[i]
	}
	return Number(low) // above the last edge
}

func (b histogramBuckets) summary() LatencySummary {
	return LatencySummary{Mean: b.mean(), P50: b.quantile(0.5), P95: b.quantile(0.95), P99: b.quantile(0.99)}
}
