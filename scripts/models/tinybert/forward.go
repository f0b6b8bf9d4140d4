package tinybert

import "math"

// vectors holds one vector for each token.
type vectors [][]float64

// Embed computes the embedding of a text's tokens: pooled as the file says, with length 1.
func (m *Model) Embed(tokens []int32) []float64 {
	hidden := m.forward(tokens)
	sum := make([]float64, Width)
	if m.pooling == PoolingCLS {
		hidden = hidden[:1]
	}
	for _, row := range hidden {
		for i, x := range row {
			sum[i] += x
		}
	}
	length := 0.0
	for _, x := range sum {
		length += x * x
	}
	for i := range sum {
		sum[i] /= math.Sqrt(length)
	}
	return sum
}

// Score computes the classifier's score.
func (m *Model) Score(tokens []int32) float64 {
	h := m.linear("cls", vectors{m.forward(tokens)[0]})
	for i, x := range h[0] {
		h[0][i] = math.Tanh(x)
	}
	return m.linear("cls.output", h)[0][0]
}

// forward computes the last layer's vectors.
func (m *Model) forward(tokens []int32) vectors {
	h := make(vectors, len(tokens))
	words, types, places := m.byName["token_embd.weight"], m.byName["token_types.weight"], m.byName["position_embd.weight"]
	for t, id := range tokens {
		h[t] = make([]float64, Width)
		for i := range h[t] {
			h[t][i] = float64(words[int(id)*Width+i]) + float64(types[i]) + float64(places[t*Width+i])
		}
	}
	h = m.norm("token_embd_norm", h)
	for i := range layers {
		b := block(i)
		a := m.linear(b+"attn_output", attention(m.linear(b+"attn_q", h), m.linear(b+"attn_k", h), m.linear(b+"attn_v", h)))
		h = m.norm(b+"attn_output_norm", sum(a, h))
		f := m.linear(b+"ffn_up", h)
		for _, row := range f {
			for i, x := range row {
				row[i] = 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
			}
		}
		h = m.norm(b+"layer_output_norm", sum(m.linear(b+"ffn_down", f), h))
	}
	return h
}

func (m *Model) linear(name string, in vectors) vectors {
	weight, bias := m.byName[name+".weight"], m.byName[name+".bias"]
	out := make(vectors, len(in))
	for t, row := range in {
		out[t] = make([]float64, len(bias))
		for o := range out[t] {
			x := float64(bias[o])
			for i, v := range row {
				x += v * float64(weight[o*len(row)+i])
			}
			out[t][o] = x
		}
	}
	return out
}

func (m *Model) norm(name string, in vectors) vectors {
	weight, bias := m.byName[name+".weight"], m.byName[name+".bias"]
	out := make(vectors, len(in))
	for t, row := range in {
		mean, squares := 0.0, 0.0
		for _, x := range row {
			mean += x / Width
		}
		for _, x := range row {
			squares += (x - mean) * (x - mean) / Width
		}
		out[t] = make([]float64, Width)
		for i, x := range row {
			out[t][i] = (x-mean)/math.Sqrt(squares+epsilon)*float64(weight[i]) + float64(bias[i])
		}
	}
	return out
}

// attention lets each token see all, before and behind it.
func attention(q, k, v vectors) vectors {
	const size = Width / heads
	out := make(vectors, len(q))
	for t := range q {
		out[t] = make([]float64, Width)
		for head := range heads {
			from, to := head*size, (head+1)*size
			shares, total := make([]float64, len(k)), 0.0
			for s := range k {
				x := 0.0
				for i := from; i < to; i++ {
					x += q[t][i] * k[s][i]
				}
				shares[s] = math.Exp(x / math.Sqrt(size))
				total += shares[s]
			}
			for s := range k {
				for i := from; i < to; i++ {
					out[t][i] += shares[s] / total * v[s][i]
				}
			}
		}
	}
	return out
}

func sum(a, b vectors) vectors {
	for t := range a {
		for i := range a[t] {
			a[t][i] += b[t][i]
		}
	}
	return a
}
