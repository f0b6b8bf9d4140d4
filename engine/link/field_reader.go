package link

import (
	"bytes"
	"fmt"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/engine/models"
	"tandem/schema"
)

// fieldReader keeps the first error of several getters and copies what they return.
type fieldReader struct{ err error }

func (d *fieldReader) noteError(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *fieldReader) text(v string, err error) string {
	d.noteError(err)
	return v // the accessor copies
}

func (d *fieldReader) string(v []byte, err error) string {
	d.noteError(err)
	return string(v)
}

func (d *fieldReader) data(v []byte, err error) []byte {
	d.noteError(err)
	if len(v) == 0 {
		return nil
	}
	return bytes.Clone(v)
}

func (d *fieldReader) int32s(v capnp.Int32List, err error) []int32 {
	d.noteError(err)
	if err != nil || v.Len() == 0 {
		return nil
	}
	out := make([]int32, v.Len())
	for i := range out {
		out[i] = v.At(i)
	}
	return out
}

func (d *fieldReader) texts(v capnp.TextList, err error) []string {
	d.noteError(err)
	if err != nil || v.Len() == 0 {
		return nil
	}
	if v.Len() > maxStops {
		d.noteError(tooMany("stops", v.Len()))
		return nil
	}
	out := make([]string, v.Len())
	for i := range out {
		out[i] = d.text(v.At(i))
	}
	return out
}

// messages returns the messages; the second error is the client's mistake.
func (d *fieldReader) messages(v schema.Message_List, err error) ([]models.Message, error) {
	d.noteError(err)
	if err != nil || v.Len() == 0 {
		return nil, nil
	}
	if v.Len() > maxMessages {
		d.noteError(tooMany("messages", v.Len()))
		return nil, nil
	}
	out := make([]models.Message, v.Len())
	for i := range out {
		m := v.At(i)
		out[i] = models.Message{
			Role: d.text(m.Role()), Content: d.string(m.Content()), Name: d.text(m.Name()),
			ToolCallID: d.text(m.ToolCallId()), Reasoning: d.string(m.Reasoning()),
		}
		calls := d.data(m.ToolCalls())
		if d.err != nil {
			return nil, nil
		}
		if out[i].ToolCalls, err = models.DecodeToolCalls(calls); err != nil {
			return nil, &invalidFieldError{"messages", fmt.Sprintf("of message %d: %v", i, err)}
		}
	}
	return out, nil
}
