package batch

import (
	"math"
	"math/bits"
	"slices"
)

const (
	// costForgetting is the weight of earlier steps, multiplied at each step: the last hundred or so decide. On a
	// machine that others use, too, a step may take half or twice its time, and of twenty the fit is anything.
	costForgetting = 0.99
	// costRidge: how strongly a coefficient keeps its value while the observed steps don't separate it from the others
	costRidge = 0.02
	// So many decoding sequences, prompt tokens and attended cells cost roughly as much as a step's fixed part. With
	// these units, a cost that the steps don't separate is divided sensibly.
	decodeUnit = 8.0
	promptUnit = 64.0
	cellUnit   = 8192.0

	loneWeight = 0.2 // of the newest step of one token
	// Steps of 2 and 3 sequences, of 4 to 7 and of 8 to 15 count in the fit by their means, each as so many steps,
	// however long ago they were: while all steps have about as many sequences, these and the fixed part can't be told
	// apart otherwise.
	anchorSizes  = 3
	anchorWeight = 25.0
	anchorMemory = 0.05 // weight of the newest step in such a mean
	// usualWeight is that of the newest step in what is usual. A step that should take less than usualPart of that and
	// takes still less says that a step's fixed part is smaller with little work, and nothing of the machine.
	usualWeight, usualPart = 0.1, 0.7
	// outlierFactor: a step of a new kind counts as at most this many times its predicted time: a hiccup of seconds
	// must not decide hundreds of steps
	outlierFactor = 4.0
	// A step of a known kind that takes more, or less, by this factor says something of the machine and nothing of the
	// kinds of work: so many of them, one after another, and everything is taken to cost that much more, or less.
	speedFactor = 2.0
	speedSteps  = 3
	// knownVariance: of a prediction, in units of one step's; a kind of step is known below it.
	knownVariance = 0.3
	// doubledAtCells: after so many others a prompt token takes twice as long, as long as nothing is known of it.
	doubledAtCells = 4096.0
)

// stepWork is what a step computes.
type stepWork struct {
	decodes int // sequences that advance by one token
	prompts int // prompt tokens
	cells   int // KV cells that its tokens attend to, summed over the tokens
}

func (w stepWork) plus(v stepWork) stepWork {
	return stepWork{w.decodes + v.decodes, w.prompts + v.prompts, w.cells + v.cells}
}

// attendedCells is how many cells tokens that follow on so many others attend to, each with itself.
func attendedCells(position, tokens int) int { return tokens*position + tokens*(tokens+1)/2 }

// stepCost is how long a step takes: a fixed part (the weights are read once), and a part for each decoding sequence,
// each prompt token and each cell that a token attends to. The coefficients are fitted to the observed steps, newer
// ones weighing more: weighted least squares by the normal equations, with a pull towards the last values in directions
// that the steps don't determine. When the machine's speed changes, as when another process takes processors, all of
// them change together: a fit over steps of both speeds would find a cost where there is none.
type stepCost struct {
	// ns: fixed, of decodeUnit sequences, of promptUnit prompt tokens, of cellUnit cells; none is negative
	coefficients costVector
	normalMatrix [costParts]costVector
	normalVector costVector
	observed     bool                    // a step was observed
	several      bool                    // a step of several tokens was observed
	anchors      [anchorSizes]costAnchor // of 2 and 3 sequences, 4 to 7, 8 to 15
	lone         float64                 // a step of one token alone, without its cells; 0: not known
	usual        float64                 // what steps of several tokens are predicted to take
	deviations   []float64               // of the last steps: the time by the predicted one; all above 1, or all below
}

const costParts = 4

type costVector [costParts]float64

func (v costVector) dot(w costVector) float64 {
	sum := 0.0
	for i := range v {
		sum += v[i] * w[i]
	}
	return sum
}

func costFeatures(w stepWork) costVector {
	return costVector{1, float64(w.decodes) / decodeUnit, float64(w.prompts) / promptUnit, float64(w.cells) / cellUnit}
}

// predict is how long such a step would take, in ns.
func (c *stepCost) predict(w stepWork) float64 {
	if w.isLone() && c.loneIsKnown() {
		return c.lone + c.perCell()*float64(w.cells)
	}
	return costFeatures(w).dot(c.coefficients)
}

// loneIsKnown reports whether a step of one token was observed that took no longer than steps of several usually do:
// one that did was disturbed, or is from when the machine was slower.
func (c *stepCost) loneIsKnown() bool {
	return c.lone > 0 && (c.usual == 0 || c.lone <= speedFactor*c.usual)
}

// loneStep is a step of one token, but for its cells.
var loneStep = stepWork{decodes: 1}

// isLone reports whether a step has one token only.
func (w stepWork) isLone() bool { return w.decodes == 1 && w.prompts == 0 }

// perPromptToken is what one more prompt token that follows on so many others adds, in ns.
func (c *stepCost) perPromptToken(position int) float64 {
	return c.coefficients[2]/promptUnit + float64(position)*c.perCell()
}

func (c *stepCost) perCell() float64 { return c.coefficients[3] / cellUnit }

// prompt is what so many prompt tokens that follow on others add, in ns.
func (c *stepCost) prompt(position, tokens int) float64 {
	return c.coefficients[2]/promptUnit*float64(tokens) + c.perCell()*float64(attendedCells(position, tokens))
}

// promptTokensWithin is how many prompt tokens that follow on so many others can be had for a time in ns, at most a
// number.
func (c *stepCost) promptTokensWithin(ns float64, position, most int) int {
	if ns >= c.prompt(position, most) {
		return most
	}
	if ns <= 0 {
		return 0
	}
	// the largest n with n·each + n²·perCell/2 <= ns, in the form that holds without perCell, too
	each, perCell := c.perPromptToken(position)+c.perCell()/2, c.perCell()
	return int(2 * ns / (each + math.Sqrt(each*each+2*perCell*ns)))
}

// observe learns from one step. One token alone has other kernels, on a CPU twice as fast as those for two, so it is
// learned by itself, and counts in the fit for the others until a step of a few is known.
func (c *stepCost) observe(w stepWork, ns float64) {
	if w.isLone() {
		c.observeLone(w, ns)
		if c.several {
			return
		}
	}
	c.several = c.several || !w.isLone()
	features := costFeatures(w)
	if !c.observed { // there are no last values yet
		share := ns / features.dot(costVector{1, 1, 1, 1})
		c.observed, c.coefficients = true, costVector{share, share, share, share}
	}
	if c.isDeviation(features, ns) {
		return
	}
	if limit := outlierFactor * c.predict(w); limit > 0 {
		ns = min(ns, limit)
	}
	defer c.fit()
	if size := w.anchorSize(); size >= 0 {
		c.anchors[size].add(features, ns)
		return
	}
	norm := features.dot(features) // so that a long step doesn't outweigh all short ones
	for i := range features {
		for k := range features {
			c.normalMatrix[i][k] = costForgetting*c.normalMatrix[i][k] + features[i]*features[k]/norm
		}
		c.normalVector[i] = costForgetting*c.normalVector[i] + features[i]*ns/norm
	}
}

// costAnchor is the mean of some steps of about as many sequences. The zero value is none.
type costAnchor struct {
	features costVector
	ns       float64
}

func (a *costAnchor) add(features costVector, ns float64) {
	part := anchorMemory
	if a.ns == 0 {
		part = 1
	}
	for i := range features {
		a.features[i] += part * (features[i] - a.features[i])
	}
	a.ns += part * (ns - a.ns)
}

// anchorSize is the index of the anchor in which a step counts, or -1.
func (w stepWork) anchorSize() int {
	size := bits.Len(uint(w.decodes)) - 2
	if w.prompts > 0 || size >= anchorSizes {
		return -1
	}
	return size
}

// observeLone learns from a step of one token.
func (c *stepCost) observeLone(w stepWork, ns float64) {
	ns = max(ns-c.perCell()*float64(w.cells), 0)
	if !c.loneIsKnown() {
		c.lone = ns
		return
	}
	c.lone += loneWeight * (min(ns, outlierFactor*c.lone) - c.lone)
}

// assumeCells sets what a cell costs while all observed steps attended to few.
func (c *stepCost) assumeCells() {
	c.coefficients[3] = c.perPromptToken(0) * cellUnit / doubledAtCells
}

// isDeviation reports whether a step says nothing of the cost of its kind of work, since it took much longer, or much
// less long, than known. After some of these the coefficients follow.
func (c *stepCost) isDeviation(features costVector, ns float64) bool {
	predicted := features.dot(c.coefficients)
	ratio := ns / predicted
	slower, faster := ratio > speedFactor, ratio < 1/speedFactor && predicted > usualPart*c.usual
	if c.usual == 0 {
		c.usual = predicted
	}
	c.usual += usualWeight * (predicted - c.usual)
	if predicted == 0 || !(slower || faster) || !c.isKnown(features) {
		c.deviations = c.deviations[:0]
		return false
	}
	if len(c.deviations) > 0 && (c.deviations[0] > 1) != slower {
		c.deviations = c.deviations[:0]
	}
	c.deviations = append(c.deviations, ratio)
	if len(c.deviations) < speedSteps {
		return true
	}
	slices.Sort(c.deviations)
	c.rescale(c.deviations[speedSteps/2])
	c.deviations = c.deviations[:0]
	return false
}

// rescale takes everything to cost so many times as much, and forgets the steps that said otherwise.
func (c *stepCost) rescale(factor float64) {
	for i := range c.coefficients {
		c.coefficients[i] *= factor
	}
	c.usual *= factor
	c.lone *= factor
	for i := range c.anchors {
		c.anchors[i].ns *= factor
	}
	c.normalMatrix, c.normalVector = [costParts]costVector{}, costVector{}
}

// isKnown reports whether there were enough steps of this kind, whatever their size, to predict another.
func (c *stepCost) isKnown(features costVector) bool {
	solution := c.solveFor(features, [costParts]bool{})
	return features.dot(solution) < knownVariance*features.dot(features)
}

// fit solves for the coefficients. The most negative one is set to 0, and the others are solved again without it.
func (c *stepCost) fit() {
	var zero [costParts]bool
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

// solve finds the coefficients; those in zero are held at 0.
func (c *stepCost) solve(zero [costParts]bool) costVector {
	_, vector := c.anchored()
	for i := range vector {
		vector[i] += costRidge * c.coefficients[i]
	}
	return c.solveFor(vector, zero)
}

// anchored is the normal equations with the anchors, or the step of one token if there are none.
func (c *stepCost) anchored() (matrix [costParts]costVector, vector costVector) {
	matrix, vector = c.normalMatrix, c.normalVector
	anchors := c.anchors[:]
	if c.anchors == [anchorSizes]costAnchor{} && c.several && c.loneIsKnown() {
		anchors = []costAnchor{{costFeatures(loneStep), c.lone}}
	}
	for _, a := range anchors {
		if a.ns == 0 {
			continue
		}
		weight := anchorWeight / a.features.dot(a.features)
		for i := range matrix {
			for k := range matrix {
				matrix[i][k] += weight * a.features[i] * a.features[k]
			}
			vector[i] += weight * a.features[i] * a.ns
		}
	}
	return matrix, vector
}

// solveFor solves the normal equations for another vector by elimination. The pull makes the matrix positive definite.
func (c *stepCost) solveFor(vector costVector, zero [costParts]bool) costVector {
	matrix, _ := c.anchored()
	for i := range matrix {
		matrix[i][i] += costRidge
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
	var solution costVector
	for i := len(solution) - 1; i >= 0; i-- {
		solution[i] = vector[i]
		for k := i + 1; k < len(solution); k++ {
			solution[i] -= matrix[i][k] * solution[k]
		}
		solution[i] /= matrix[i][i]
	}
	return solution
}
