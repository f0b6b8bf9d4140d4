//go:build !llama

package e2e

const (
	engineTags = ""
	withLlama  = false
)
