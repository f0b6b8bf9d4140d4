package models

import (
	"context"
	"errors"
)

var errNotTested = errors.New("not part of these tests")

func (*fakeBase) Tokenize(context.Context, string, bool, int) ([]int32, error) {
	return nil, errNotTested
}
func (*fakeBase) Detokenize([]int32) ([]byte, error) { return nil, errNotTested }
func (*fakeBase) ScoreTokens(context.Context, string, string) ([]int32, error) {
	return nil, errNotTested
}
func (*fakeBase) Embed(context.Context, Task, Adapter, []int32) ([]float32, error) {
	return nil, errNotTested
}
