package link

import (
	"fmt"
	"time"

	"tandem/schema"
	"tandem/schema/wire"
)

// Hello is how the engine describes itself in its first frame.
type Hello struct {
	Build          string // program version
	Instance       uint64 // random, new with every process start
	Numerics       string // equal ids give equal tokens
	Device         string // backend in use: cuda, cpu, mock …
	Devices        []Device
	Backends       []Backend
	LibraryCommit  string // of llama.cpp
	Features       []string
	LastExit       LastExit
	ProcessID      int
	MaxPromptBytes int
}

// Device of the machine; memory in bytes.
type Device struct {
	Name, Backend, Description string
	MemoryTotal, MemoryFree    uint64
}

// Backend is a compute backend that is installed. Problem says why it gives no device.
type Backend struct {
	Name, Problem string
	Devices       []Device
}

// LastExit is how the engine before this one ended.
type LastExit struct {
	Kind         ExitKind
	Signal, Code int
	Uptime       time.Duration
	Crashes      int    // without progress
	Loads        []Load // in progress when it died, oldest first
}

// Load that was in progress.
type Load struct {
	Model, Version string
	Revision       []byte
}

// ExitKind of a LastExit.
type ExitKind uint8

// Exit kinds, in the schema's order.
const (
	ExitNone ExitKind = iota
	ExitCode
	ExitSignal
	ExitOOM
	ExitStall
	ExitUpgrade
)

// tokenBytes is the size of one token in the backlog, its text not included: its fields in the frame.
const tokenBytes = 96

func (id *Hello) write(f schema.Frame, limit wire.Options) error {
	h, err := f.NewHello()
	if err != nil {
		return err
	}
	h.SetProtocol(wire.Protocol)
	h.SetMinProtocol(wire.MinProtocol)
	h.SetInstanceId(id.Instance)
	h.SetProcessId(int32(id.ProcessID))
	w := fieldWriter{}
	w.text(h.SetBuild, id.Build)
	w.text(h.SetNumericsId, id.Numerics)
	w.text(h.SetDevice, id.Device)
	w.text(h.SetLibraryCommit, id.LibraryCommit)
	if w.err != nil {
		return w.err
	}
	features, err := h.NewFeatures(int32(len(id.Features)))
	if err != nil {
		return err
	}
	for i, name := range id.Features {
		if err := features.Set(i, name); err != nil {
			return err
		}
	}
	limits, err := h.NewLimits()
	if err != nil {
		return err
	}
	limits.SetMaxFrameBytes(uint32(limit.MaxFrameBytes))
	limits.SetMaxPromptBytes(uint32(id.MaxPromptBytes))
	limits.SetBacklogTokens(uint32(limit.BacklogBytes / tokenBytes))
	if err := writeDevices(h.NewDevices, id.Devices); err != nil {
		return err
	}
	if err := writeBackends(h, id.Backends); err != nil {
		return err
	}
	return id.LastExit.write(h)
}

func writeBackends(h schema.Hello, backends []Backend) error {
	list, err := h.NewBackends(int32(len(backends)))
	if err != nil {
		return err
	}
	for i, b := range backends {
		w := fieldWriter{}
		w.text(list.At(i).SetName, b.Name)
		w.text(list.At(i).SetProblem, b.Problem)
		if w.err != nil {
			return w.err
		}
		if err := writeDevices(list.At(i).NewDevices, b.Devices); err != nil {
			return err
		}
	}
	return nil
}

func writeDevices(newList func(int32) (schema.Device_List, error), devices []Device) error {
	list, err := newList(int32(len(devices)))
	if err != nil {
		return err
	}
	for i, d := range devices {
		to := list.At(i)
		to.SetMemoryTotal(d.MemoryTotal)
		to.SetMemoryFree(d.MemoryFree)
		w := fieldWriter{}
		w.text(to.SetName, d.Name)
		w.text(to.SetBackend, d.Backend)
		w.text(to.SetDescription, d.Description)
		if w.err != nil {
			return w.err
		}
	}
	return nil
}

func (e *LastExit) write(h schema.Hello) error {
	to, err := h.NewLastExit()
	if err != nil {
		return err
	}
	to.SetKind(schema.ExitKind(e.Kind))
	to.SetSignal(int32(e.Signal))
	to.SetCode(int32(e.Code))
	to.SetUptimeNs(nanos(e.Uptime))
	to.SetCrashes(uint32(e.Crashes))
	if len(e.Loads) == 0 {
		return nil
	}
	oldest, w := e.Loads[0], fieldWriter{}
	w.text(to.SetLoadingModel, oldest.Model)
	w.text(to.SetLoadingVersion, oldest.Version)
	w.data(to.SetLoadingRevision, oldest.Revision)
	list, err := to.NewLoads(int32(len(e.Loads)))
	if err != nil {
		return err
	}
	for i, l := range e.Loads {
		w.text(list.At(i).SetModel, l.Model)
		w.text(list.At(i).SetVersion, l.Version)
	}
	return w.err
}

// exchangeHellos sends this engine's hello and reads the proxy's. Nothing else uses the connection yet.
func (l *Link) exchangeHellos(conn *wire.Conn) error {
	if err := conn.SendControl(func(f schema.Frame) error { return l.o.Hello.write(f, l.o.Wire) }); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	frame, release, err := conn.Read()
	if err != nil {
		return err
	}
	defer release()
	err = wire.Guard(func() error {
		if frame.Which() == schema.Frame_Which_goAway {
			reason, _ := frame.GoAway() // only for people
			return fmt.Errorf("%w: %s", errGoAway, shorten(reason))
		}
		if frame.Which() != schema.Frame_Which_hello {
			return fmt.Errorf("%w: first frame is %v", wire.ErrProtocol, frame.Which())
		}
		hello, err := frame.Hello()
		if err != nil {
			return err
		}
		_, err = wire.Agree(hello)
		return err
	})
	if err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}
