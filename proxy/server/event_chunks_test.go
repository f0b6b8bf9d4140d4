package server

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// bodyChunks reads a reply from a socket and returns the chunks of its body as they were sent.
func bodyChunks(t *testing.T, r *bufio.Reader) (header http.Header, chunks []string) {
	t.Helper()
	header = http.Header{}
	line := func() string {
		text, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d chunks: %v", len(chunks), err)
		}
		return strings.TrimSuffix(text, "\r\n")
	}
	for text := line(); text != ""; text = line() {
		name, value, _ := strings.Cut(text, ": ")
		header.Add(name, value)
	}
	for {
		n, err := strconv.ParseInt(line(), 16, 32)
		if err != nil {
			t.Fatalf("the size of a chunk: %v", err)
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(r, chunk); err != nil {
			t.Fatal(err)
		}
		line()
		if n == 0 {
			return header, chunks
		}
		chunks = append(chunks, string(chunk))
	}
}

// A chunk has whole events, however long one is, so that clients that take each chunk for itself can read it.
func TestNoEventIsSplitAcrossChunks(t *testing.T) {
	const long = 40_000 // more than any buffer on the way
	for path, body := range map[string]string{
		"/infer": streamed(inferBody), "/v1/chat/completions": strings.Replace(resumableBody, "%d", "0", 1),
		"/v1/responses": streamed(responsesBody), "/v1/messages": streamed(messagesBody), "resumed": "",
	} {
		t.Run(path, func(t *testing.T) {
			table, asked := manualTable()
			ts := startTestServer(t, table, nil)
			resumed := path == "resumed"
			request := strings.Replace(rawInfer(body, "HTTP/1.1"), "/infer", path, 1)
			if resumed {
				request = strings.Replace(rawInfer(strings.Replace(resumableBody, "%d", "60", 1), "HTTP/1.1"), "/infer", "/v1/chat/completions", 1)
			}
			c, r := ts.dial()
			ts.send(c, request)
			a := <-asked
			a.addText("short")
			a.addText(strings.Repeat("x", long))
			a.end(2)
			header, chunks := bodyChunks(t, r)
			if resumed {
				ts.send(c, "GET /v1/streams/"+header.Get("X-Stream-Id")+" HTTP/1.1\r\nHost: x\r\nX-API-Key: "+testKey+"\r\n\r\n")
				_, chunks = bodyChunks(t, r)
			}
			longest := 0
			for _, chunk := range chunks {
				begins := strings.HasPrefix(chunk, "data: ") || strings.HasPrefix(chunk, "event: ") || strings.HasPrefix(chunk, "id: ") || strings.HasPrefix(chunk, ":")
				if !begins || !strings.HasSuffix(chunk, "\n") || !strings.HasPrefix(chunk, ":") && !strings.HasSuffix(chunk, "\n\n") {
					t.Errorf("a chunk of %d bytes isn't one of whole events: %.40q … %q", len(chunk), chunk, chunk[max(0, len(chunk)-20):])
				}
				longest = max(longest, len(chunk))
			}
			if longest < long {
				t.Errorf("the longest chunk has %d bytes", longest)
			}
		})
	}
}
