//go:build !llama

package e2e

const (
	engineTags = ""
	realModel  = false
)
