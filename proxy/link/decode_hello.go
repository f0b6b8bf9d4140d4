package link

import (
	"fmt"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

// decodeHello reads the first frame of an engine, which must be a hello of a protocol that we can speak.
func decodeHello(f schema.Frame) (inflight.Hello, error) {
	if f.Which() != schema.Frame_Which_hello {
		return inflight.Hello{}, fmt.Errorf("%w: first frame is %d, not a hello", wire.ErrProtocol, f.Which())
	}
	from, err := f.Hello()
	if err != nil {
		return inflight.Hello{}, err
	}
	if _, err := wire.Agree(from); err != nil {
		return inflight.Hello{}, err
	}
	r := fieldReader{}
	h := inflight.Hello{
		Instance: from.InstanceId(), Build: r.text(from.Build()), LibraryCommit: r.text(from.LibraryCommit()), Numerics: r.text(from.NumericsId()),
		Device: r.text(from.Device()), PID: int(from.ProcessId()),
	}
	limits, err := from.Limits()
	r.keepErr(err)
	h.MaxPrompt = int(limits.MaxPromptBytes())
	if h.Devices, err = decodeDevices(from.Devices, &r); err != nil {
		return h, err
	}
	if h.Backends, err = decodeBackends(from, &r); err != nil {
		return h, err
	}
	exit, err := from.LastExit()
	r.keepErr(err)
	h.LastExit = inflight.LastExit{
		Kind: inflight.ExitKind(exit.Kind()), Signal: int(exit.Signal()), Code: int(exit.Code()), Uptime: duration(exit.UptimeNs()), Crashes: int(exit.Crashes()),
	}
	if h.LastExit.Loads, err = decodeLoads(exit, &r); err != nil {
		return h, err
	}
	return h, r.err
}

func decodeDevices(get func() (schema.Device_List, error), r *fieldReader) ([]inflight.Device, error) {
	list, err := get()
	if err != nil || list.Len() > maxDevices {
		return nil, listError("devices", list.Len(), err)
	}
	var devices []inflight.Device
	for i := range list.Len() {
		d := list.At(i)
		devices = append(devices, inflight.Device{
			Name: r.text(d.Name()), Backend: r.text(d.Backend()), Description: r.text(d.Description()), MemoryTotal: d.MemoryTotal(), MemoryFree: d.MemoryFree(),
		})
	}
	return devices, nil
}

func decodeBackends(hello schema.Hello, r *fieldReader) ([]inflight.Backend, error) {
	list, err := hello.Backends()
	if err != nil || list.Len() > maxBackends {
		return nil, listError("backends", list.Len(), err)
	}
	var backends []inflight.Backend
	for i := range list.Len() {
		b := inflight.Backend{Name: r.text(list.At(i).Name()), Problem: r.text(list.At(i).Problem())}
		if b.Devices, err = decodeDevices(list.At(i).Devices, r); err != nil {
			return nil, err
		}
		backends = append(backends, b)
	}
	return backends, nil
}

// decodeLoads returns the loads in which an engine died. An engine that can't list them names the oldest one.
func decodeLoads(exit schema.LastExit, r *fieldReader) ([]inflight.Load, error) {
	list, err := exit.Loads()
	if err != nil || list.Len() > maxListEntries {
		return nil, listError("loads", list.Len(), err)
	}
	var loads []inflight.Load
	for i := range list.Len() {
		loads = append(loads, inflight.Load{Model: r.text(list.At(i).Model()), Version: r.text(list.At(i).Version())})
	}
	if model := r.text(exit.LoadingModel()); len(loads) == 0 && model != "" {
		loads = append(loads, inflight.Load{Model: model, Version: r.text(exit.LoadingVersion())})
	}
	return loads, nil
}
