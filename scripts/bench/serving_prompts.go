package main

import (
	"math/rand/v2"
	"strings"
)

// commonWords are words that are one token of the real model each, with the space before them.
var commonWords = strings.Fields(`the of and to in is that it was for on are as with his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made over
did down only way find use may water long little very after words called just where most know get through back much go
good new write our me man too any day same right look think also around another came come work three must because does
part even place well such here take why help put different away again off went old number great tell men say small every
found still between name should home big give air line set own under read last never us left end along while might next
sound below saw something thought both few those always looked show large often together asked house world going want`)

// promptOf returns random words; equal seeds give equal prompts, different ones differ from the start.
func promptOf(seed uint64, words int) string {
	random := rand.New(rand.NewPCG(seed, 7))
	list := make([]string, words)
	for i := range list {
		list[i] = commonWords[random.IntN(len(commonWords))]
	}
	return strings.Join(list, " ")
}
