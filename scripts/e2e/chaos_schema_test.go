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
	"time"
)

// The programs of a later version are built from this source with a schema that has grown as the rules for it allow: each struct has one
// more word and one more pointer, which are filled in, the highest protocol is 2, and each frame of data comes behind one whose union
// member nobody knows here. What they say of themselves is the version laterVersion.
const (
	laterVersion = "2.0.0"

	laterFields = `package schema

import capnp "capnproto.org/go/capnp/v3"

func later(st capnp.Struct, err error, word capnp.DataOffset, pointer uint16) (capnp.Struct, error) {
	if err == nil {
		st.SetUint64(word, 0xfedcba9876543210)
		err = st.SetText(pointer, "a field of a later version")
	}
	return st, err
}

func laterList(l capnp.List, err error, word capnp.DataOffset, pointer uint16) (capnp.List, error) {
	for i := 0; err == nil && i < l.Len(); i++ {
		_, err = later(l.Struct(i), nil, word, pointer)
	}
	return l, err
}
`
	laterFrames = `package wire

import (
	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
)

func unknown(f schema.Frame) error {
	f.SetId(12345)
	if err := f.SetGoAway("a member of a later version"); err != nil {
		return err
	}
	capnp.Struct(f).SetUint16(12, 77) // which member the union holds
	return nil
}

func (c *Conn) Send(build func(schema.Frame) error) error {
	if err := c.sendOne(unknown); err != nil {
		return err
	}
	return c.sendOne(build)
}

func (c *Conn) SendLater(l Later) error {
	if err := c.sendOne(unknown); err != nil {
		l.Release()
		return err
	}
	return c.sendOneLater(l)
}
`
)

var (
	structSize = regexp.MustCompile(`(l|st), err := (capnp\.New\w+)\(s, capnp\.ObjectSize\{DataSize: (\d+), PointerCount: (\d+)\}(, sz)?\)`)
	protocol   = regexp.MustCompile(`Protocol    uint16 = 1\n`)
	senders    = regexp.MustCompile(`func \(c \*Conn\) Send(Later)?\(`)
)

// later builds both programs of the later version.
func later(t *testing.T) (proxy, engine string) {
	t.Helper()
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	put := func(path, text string) {
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
	change := func(path string, what *regexp.Regexp, to func(match []string) string) {
		source, err := os.ReadFile(filepath.Join("..", "..", path))
		if err != nil || !what.Match(source) {
			t.Fatalf("%s: nothing to change (%v)", path, err)
		}
		put(path, what.ReplaceAllStringFunc(string(source), func(m string) string { return to(what.FindStringSubmatch(m)) }))
	}
	change("schema/engine.capnp.go", structSize, func(m []string) string {
		words, _ := strconv.Atoi(m[3]) // digits, both
		pointers, _ := strconv.Atoi(m[4])
		fill := "later"
		if m[1] == "l" {
			fill = "laterList"
		}
		return fmt.Sprintf("%s, err := %s(s, capnp.ObjectSize{DataSize: %d, PointerCount: %d}%s)\n\t%s, err = %s(%s, err, %d, %d)",
			m[1], m[2], words+8, pointers+1, m[5], m[1], fill, m[1], words, pointers)
	})
	change("schema/wire/conn.go", protocol, func([]string) string { return "Protocol uint16 = 2\n" })
	change("schema/wire/frame_writer.go", senders, func(m []string) string { return "func (c *Conn) sendOne" + m[1] + "(" })
	put("schema/later.go", laterFields)
	put("schema/wire/later.go", laterFrames)
	raw, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return buildLater(t, file, dir, "proxy"), buildLater(t, file, dir, "engine")
}

func buildLater(t *testing.T, overlay, dir, name string) string {
	t.Helper()
	program := filepath.Join(dir, "tandem-"+name)
	args := append([]string{"build", "-overlay", overlay, "-ldflags", "-X main.version=" + laterVersion, "-o", program}, buildFlags(name == "engine")...)
	if out, err := exec.Command("go", append(args, "tandem/"+name)...).CombinedOutput(); err != nil {
		t.Fatalf("build %s of the later version: %v\n%s", name, err, out)
	}
	return program
}

// replaceEngine starts an engine of another version and sends the old one away.
func (c *chaos) replaceEngine(program, build string, number int) {
	t, old := c.s.t, c.s.engine
	t.Helper()
	c.s.engine = start(t, "engine", program, c.s.env, "supervise")
	c.s.engineAttached(number)
	if lines := attachedLine.Split(c.s.proxy.log.String(), -1); !strings.HasPrefix(lines[len(lines)-1], " build="+build) {
		t.Errorf("engine number %d is not of version %s: %.60s", number, build, lines[len(lines)-1])
	}
	old.cmd.Process.Signal(syscall.SIGTERM)
	old.mustEnd(t, 20*time.Second)
	c.goesOn("answers from version " + build)
}

func TestHandOverBetweenVersionsOfTheSchema(t *testing.T) {
	t.Parallel()
	laterProxy, laterEngine := later(t)
	for name, proxy := range map[string]string{"this proxy": programs.proxy, "later proxy": laterProxy} {
		t.Run(name, func(t *testing.T) {
			s := prepareStack(t, "STEP_DELAY=5ms")
			s.proxy = start(t, "proxy", proxy, s.env, "serve")
			s.startEngine()
			s.waitReady(60 * time.Second)
			c := s.chaos()
			p := c.disturb("hand-overs between versions", func() {
				c.replaceEngine(laterEngine, laterVersion, 2)
				c.s.signalEngine(syscall.SIGKILL)
				c.s.engineAttached(3)
				c.goesOn("answers after a death of the later engine")
				c.replaceEngine(programs.engine, "1.0.0", 4)
				c.s.signalEngine(syscall.SIGKILL)
				c.s.engineAttached(5)
			})
			if n := p.sum("llm_requests_replayed_total", "result", "resumed"); n == 0 {
				t.Error("nothing was continued")
			}
			if n := p.sum("llm_requests_replayed_total") - p.sum("llm_requests_replayed_total", "result", "resumed") - p.sum("llm_requests_replayed_total", "result", "restarted"); n != 0 {
				t.Errorf("%v replays neither went on nor began again", n)
			}
		})
	}
}
