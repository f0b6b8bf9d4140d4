package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The programs of the next version are built from this source with a schema that has grown as its rules allow: each
// struct has one more word and one more pointer, which are filled in, the highest protocol is 2, and before each frame
// they send one with a union member that this version doesn't know. Their version is nextVersion.
const (
	nextVersion = "2.0.0"

	nextVersionFields = `package schema

import capnp "capnproto.org/go/capnp/v3"

func fillUnknown(st capnp.Struct, err error, word capnp.DataOffset, pointer uint16) (capnp.Struct, error) {
	if err == nil {
		st.SetUint64(word, 0xfedcba9876543210)
		err = st.SetText(pointer, "a field of a later version")
	}
	return st, err
}

func fillUnknownList(l capnp.List, err error, word capnp.DataOffset, pointer uint16) (capnp.List, error) {
	for i := 0; err == nil && i < l.Len(); i++ {
		_, err = fillUnknown(l.Struct(i), nil, word, pointer)
	}
	return l, err
}
`
	nextVersionFrames = `package wire

import (
	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
)

func buildUnknownFrame(f schema.Frame) error {
	f.SetId(12345)
	if err := f.SetGoAway("a member of a later version"); err != nil {
		return err
	}
	capnp.Struct(f).SetUint16(12, 77) // the discriminant of the union
	return nil
}

func (c *Conn) Send(build func(schema.Frame) error) error {
	if err := c.sendOne(buildUnknownFrame); err != nil {
		return err
	}
	return c.sendOne(build)
}

func (c *Conn) SendLater(l Later) error {
	if err := c.sendOne(buildUnknownFrame); err != nil {
		l.Release()
		return err
	}
	return c.sendOneLater(l)
}
`
)

var (
	newStructCall = regexp.MustCompile(`(l|st), err := (capnp\.New\w+)\(s, capnp\.ObjectSize\{DataSize: (\d+), PointerCount: (\d+)\}(, sz)?\)`)
	protocolLine  = regexp.MustCompile(`Protocol    uint16 = 1\n`)
	sendMethods   = regexp.MustCompile(`func \(c \*Conn\) Send(Later)?\(`)
)

// buildNextVersion builds both programs of the next version.
func buildNextVersion(t *testing.T) (proxy, engine string) {
	t.Helper()
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	replaceFile := func(path, text string) {
		full, err := filepath.Abs(filepath.Join("..", "..", path))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[full] = file
	}
	substitute := func(path string, what *regexp.Regexp, to func(match []string) string) {
		source, err := os.ReadFile(filepath.Join("..", "..", path))
		if err != nil || !what.Match(source) {
			t.Fatalf("%s: nothing to change (%v)", path, err)
		}
		replaceFile(path, what.ReplaceAllStringFunc(string(source), func(m string) string { return to(what.FindStringSubmatch(m)) }))
	}
	substitute("schema/engine.capnp.go", newStructCall, func(m []string) string {
		words, _ := strconv.Atoi(m[3]) // both are digits
		pointers, _ := strconv.Atoi(m[4])
		fill := "fillUnknown"
		if m[1] == "l" {
			fill = "fillUnknownList"
		}
		return fmt.Sprintf("%s, err := %s(s, capnp.ObjectSize{DataSize: %d, PointerCount: %d}%s)\n\t%s, err = %s(%s, err, %d, %d)",
			m[1], m[2], words+8, pointers+1, m[5], m[1], fill, m[1], words, pointers)
	})
	substitute("schema/wire/conn.go", protocolLine, func([]string) string { return "Protocol uint16 = 2\n" })
	substitute("schema/wire/frame_writer.go", sendMethods, func(m []string) string { return "func (c *Conn) sendOne" + m[1] + "(" })
	replaceFile("schema/later.go", nextVersionFields)
	replaceFile("schema/wire/later.go", nextVersionFrames)
	raw, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return buildNextProgram(t, file, dir, "proxy"), buildNextProgram(t, file, dir, "engine")
}

func buildNextProgram(t *testing.T, overlay, dir, name string) string {
	t.Helper()
	program := filepath.Join(dir, "tandem-"+name)
	args := append([]string{"build", "-overlay", overlay, "-ldflags", "-X main.version=" + nextVersion, "-o", program}, buildFlags(name == "engine")...)
	if out, err := exec.Command("go", append(args, "tandem/"+name)...).CombinedOutput(); err != nil {
		t.Fatalf("build %s of the later version: %v\n%s", name, err, out)
	}
	return program
}

// handOver starts an engine of another version and ends the old one.
func (c *chaosTest) handOver(program, build string, number int) {
	t, old := c.server.t, c.server.engine
	t.Helper()
	c.server.engine = startProcess(t, "engine", program, c.server.env, "supervise")
	c.server.waitEngineAttached(number)
	if lines := attachedLine.Split(c.server.proxy.log.String(), -1); !strings.HasPrefix(lines[len(lines)-1], " build="+build) {
		t.Errorf("engine number %d is not of version %s: %.60s", number, build, lines[len(lines)-1])
	}
	old.Signal(syscall.SIGTERM)
	old.waitCleanEnd(t, failureLimit)
	c.waitProgress("answers from version " + build)
}

func TestHandOverBetweenVersionsOfTheSchema(t *testing.T) {
	t.Parallel()
	laterProxy, laterEngine := buildNextVersion(t)
	for name, proxy := range map[string]string{"this proxy": binaries.proxy, "later proxy": laterProxy} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, "STEP_DELAY=5ms")
			s.proxy = startProcess(t, "proxy", proxy, s.env, "serve")
			s.startEngine()
			s.waitReady(failureLimit)
			c := s.startChaos()
			scraped := c.runUnderLoad("hand-overs between versions", func() {
				c.handOver(laterEngine, nextVersion, 2)
				c.server.signalEngine(syscall.SIGKILL)
				c.server.waitEngineAttached(3)
				c.waitProgress("answers after a death of the later engine")
				c.handOver(binaries.engine, "1.0.0", 4)
				c.server.signalEngine(syscall.SIGKILL)
				c.server.waitEngineAttached(5)
			})
			if n := scraped.sum("llm_requests_replayed_total", "result", "resumed"); n == 0 {
				t.Error("nothing was continued")
			}
			if n := scraped.sum("llm_requests_replayed_total") - scraped.sum("llm_requests_replayed_total", "result", "resumed") - scraped.sum("llm_requests_replayed_total", "result", "restarted"); n != 0 {
				t.Errorf("%v replays neither went on nor began again", n)
			}
		})
	}
}
