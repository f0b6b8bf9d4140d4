package batch

const (
	priceMemory  = 0.95 // weight of the past at each step: the last twenty steps or so decide
	priceInertia = 0.02 // how strongly a price stays where it is while the steps seen don't tell it from the others
	priceDecodes = 8.0  // so many decoding sequences and so many prompt tokens cost something like a step's fixed part, so that
	pricePrompts = 64.0 // what can't be told apart is shared out sensibly
	priceMost    = 4.0  // times its price that a step counts at most: a hiccup of seconds must not decide hundreds of steps
)

// price is what a step takes: a fixed part (the weights are read once), a part for each decoding sequence and a part for each prompt
// token. The three are fitted to the steps seen, the newer the more: weighted least squares by the normal equations, with a pull towards
// the last values in directions about which the steps say nothing.
type price struct {
	parts [3]float64 // ns: fixed, of priceDecodes sequences, of pricePrompts tokens; none is negative
	seen  [3][3]float64
	took  [3]float64
	begun bool // a step was seen
}

func priceTerms(decodes, prompts int) [3]float64 {
	return [3]float64{1, float64(decodes) / priceDecodes, float64(prompts) / pricePrompts}
}

// of is how long such a step would take, in ns.
func (p *price) of(decodes, prompts int) float64 {
	t := priceTerms(decodes, prompts)
	return t[0]*p.parts[0] + t[1]*p.parts[1] + t[2]*p.parts[2]
}

// perPrompt is what one more prompt token adds, in ns.
func (p *price) perPrompt() float64 { return p.parts[2] / pricePrompts }

// learn takes in one step.
func (p *price) learn(decodes, prompts int, ns float64) {
	t := priceTerms(decodes, prompts)
	if !p.begun { // nothing to stay near to yet
		part := ns / (t[0] + t[1] + t[2])
		p.begun, p.parts = true, [3]float64{part, part, part}
	}
	if most := priceMost * p.of(decodes, prompts); most > 0 {
		ns = min(ns, most)
	}
	size := t[0]*t[0] + t[1]*t[1] + t[2]*t[2] // a long step must not outweigh all short ones: each counts alike
	for i := range t {
		for k := range t {
			p.seen[i][k] = priceMemory*p.seen[i][k] + t[i]*t[k]/size
		}
		p.took[i] = priceMemory*p.took[i] + t[i]*ns/size
	}
	p.fit()
}

// fit solves for the parts. One that comes out negative is nothing, and the others are solved again without it.
func (p *price) fit() {
	var zero [3]bool
	for range p.parts {
		x := p.solve(zero)
		lowest := 0
		for i := range x {
			if x[i] < x[lowest] {
				lowest = i
			}
		}
		if x[lowest] >= 0 {
			p.parts = x
			return
		}
		zero[lowest] = true
	}
}

// solve finds the parts by elimination; those in zero are held at nothing. The pull makes the matrix positive definite.
func (p *price) solve(zero [3]bool) [3]float64 {
	a, y := p.seen, p.took
	for i := range a {
		a[i][i] += priceInertia
		y[i] += priceInertia * p.parts[i]
		if !zero[i] {
			continue
		}
		for k := range a {
			a[i][k], a[k][i] = 0, 0
		}
		a[i][i], y[i] = 1, 0
	}
	for i := range a {
		for k := i + 1; k < len(a); k++ {
			f := a[k][i] / a[i][i]
			for j := i; j < len(a); j++ {
				a[k][j] -= f * a[i][j]
			}
			y[k] -= f * y[i]
		}
	}
	var x [3]float64
	for i := len(x) - 1; i >= 0; i-- {
		x[i] = y[i]
		for k := i + 1; k < len(x); k++ {
			x[i] -= a[i][k] * x[k]
		}
		x[i] /= a[i][i]
	}
	return x
}
