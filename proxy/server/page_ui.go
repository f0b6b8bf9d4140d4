//go:build !noui

package server

import "embed"

// page is what scripts/build-ui.sh made, or nothing yet: the folder is there in any case.
//
//go:embed all:page/dist
var page embed.FS

// pageContent gives a file of the live page, or nil.
func pageContent(name string) []byte {
	content, err := page.ReadFile("page/dist/" + name)
	if err != nil {
		return nil
	}
	return content
}
