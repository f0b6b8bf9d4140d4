//go:build llama

package e2e

const (
	engineTags = "llama"
	withLlama  = true
)
