//go:build ui

package server

import "embed"

// page is what make ui built.
//
//go:embed page/dist
var page embed.FS

// pageContent gives a file of the live page, or nil.
func pageContent(name string) []byte {
	content, err := page.ReadFile("page/dist/" + name)
	if err != nil {
		return nil
	}
	return content
}
