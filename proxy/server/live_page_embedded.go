//go:build !noui

package server

import "embed"

// page holds what scripts/build-ui.sh has built, or nothing yet: the folder always exists.
//
//go:embed all:page/dist
var page embed.FS

// pageContent returns a file of the live page, or nil.
func pageContent(name string) []byte {
	content, err := page.ReadFile("page/dist/" + name)
	if err != nil {
		return nil
	}
	return content
}
