package batch

const (
	costForgetting = 0.95 // weight of earlier steps, multiplied at each step: the last twenty or so decide
	// costRidge: how strongly a coefficient keeps its value while the observed steps don't separate it from the others
	costRidge = 0.02
	// So many decoding sequences, and so many prompt tokens, cost roughly as much as a step's fixed part. With these
	// units, a cost that the steps don't separate is divided sensibly.
	decodeUnit = 8.0
	promptUnit = 64.0

	// outlierFactor: a step counts as at most this many times its predicted time: a hiccup of seconds must not decide
	// hundreds of steps
	outlierFactor = 4.0
)

// stepCost is how long a step takes: a fixed part (the weights are read once), a part for each decoding sequence and a
// part for each prompt token. The three coefficients are fitted to the observed steps, newer ones weighing more:
// weighted least squares by the normal equations, with a pull towards the last values in directions that the steps
// don't determine.
type stepCost struct {
	coefficients [3]float64 // ns: fixed, of decodeUnit sequences, of promptUnit prompt tokens; none is negative
	normalMatrix [3][3]float64
	normalVector [3]float64
	observed     bool // a step was observed
}

func costFeatures(decodes, prompts int) [3]float64 {
	return [3]float64{1, float64(decodes) / decodeUnit, float64(prompts) / promptUnit}
}

// predict is how long such a step would take, in ns.
func (c *stepCost) predict(decodes, prompts int) float64 {
	t := costFeatures(decodes, prompts)
	return t[0]*c.coefficients[0] + t[1]*c.coefficients[1] + t[2]*c.coefficients[2]
}

// perPromptToken is what one more prompt token adds, in ns.
func (c *stepCost) perPromptToken() float64 { return c.coefficients[2] / promptUnit }

// observe learns from one step.
func (c *stepCost) observe(decodes, prompts int, ns float64) {
	features := costFeatures(decodes, prompts)
	if !c.observed { // there are no last values yet
		share := ns / (features[0] + features[1] + features[2])
		c.observed, c.coefficients = true, [3]float64{share, share, share}
	}
	if limit := outlierFactor * c.predict(decodes, prompts); limit > 0 {
		ns = min(ns, limit)
	}
	// normalised, so that a long step doesn't outweigh all short ones
	norm := features[0]*features[0] + features[1]*features[1] + features[2]*features[2]
	for i := range features {
		for k := range features {
			c.normalMatrix[i][k] = costForgetting*c.normalMatrix[i][k] + features[i]*features[k]/norm
		}
		c.normalVector[i] = costForgetting*c.normalVector[i] + features[i]*ns/norm
	}
	c.fit()
}

// fit solves for the coefficients. The most negative one is set to 0, and the others are solved again without it.
func (c *stepCost) fit() {
	var zero [3]bool
	for range c.coefficients {
		solution := c.solve(zero)
		lowest := 0
		for i := range solution {
			if solution[i] < solution[lowest] {
				lowest = i
			}
		}
		if solution[lowest] >= 0 {
			c.coefficients = solution
			return
		}
		zero[lowest] = true
	}
}

// solve finds the coefficients by elimination; those in zero are held at 0. The pull makes the matrix positive
// definite.
func (c *stepCost) solve(zero [3]bool) [3]float64 {
	matrix, vector := c.normalMatrix, c.normalVector
	for i := range matrix {
		matrix[i][i] += costRidge
		vector[i] += costRidge * c.coefficients[i]
		if !zero[i] {
			continue
		}
		for k := range matrix {
			matrix[i][k], matrix[k][i] = 0, 0
		}
		matrix[i][i], vector[i] = 1, 0
	}
	for i := range matrix {
		for k := i + 1; k < len(matrix); k++ {
			f := matrix[k][i] / matrix[i][i]
			for j := i; j < len(matrix); j++ {
				matrix[k][j] -= f * matrix[i][j]
			}
			vector[k] -= f * vector[i]
		}
	}
	var solution [3]float64
	for i := len(solution) - 1; i >= 0; i-- {
		solution[i] = vector[i]
		for k := i + 1; k < len(solution); k++ {
			solution[i] -= matrix[i][k] * solution[k]
		}
		solution[i] /= matrix[i][i]
	}
	return solution
}
