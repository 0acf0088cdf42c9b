package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// emptyRequest is a request of the row's API with nothing in it but what it cannot do without.
func emptyRequest(row *handler, version int16) kmsg.Request {
	req := kmsg.RequestForKey(row.key)
	req.SetVersion(version)
	if d, ok := req.(interface{ Default() }); ok {
		d.Default()
	}
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		r.Acks = -1
	case *kmsg.ApiVersionsRequest:
		r.ClientSoftwareName, r.ClientSoftwareVersion = "test", "1"
	}
	return req
}

// Every version that is advertised is answered, with bytes that are an answer of that version.
func TestEveryVersionIsAnswered(t *testing.T) {
	c := startCluster(t, 1, Config{})
	w := c.dial()
	for i := range handlers {
		row := &handlers[i]
		for v := row.min; row.name != "" && v <= row.max; v++ {
			req := emptyRequest(row, v)
			resp := w.ask(req)
			if got := topCode(resp); got == protocol.CodeUnknownServerError {
				t.Errorf("%s v%d: %s", row.name, v, got)
			}
		}
	}
}

// Whatever a frame holds, the broker answers or closes the connection, and serves the next one. A request that may wait
// for others is left alone after a moment.
func FuzzRequests(f *testing.F) {
	for i := range handlers {
		if row := &handlers[i]; row.name != "" {
			f.Add(frameOf(emptyRequest(row, row.max), 1)[protocol.FrameSizeLen:])
			f.Add(frameOf(emptyRequest(row, row.min), 1)[protocol.FrameSizeLen:])
		}
	}
	c := startCluster(f, 1, Config{Static: map[string]string{"socket.request.max.bytes": "1000000"}})
	f.Add(frameOf(produceRequest(9, &topic{name: "t"}, 0, batch(3, time.Now())), 1)[protocol.FrameSizeLen:])
	f.Add(frameOf(fetchRequest(12, &topic{name: "t"}, 0), 1)[protocol.FrameSizeLen:])
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 1_000_000 {
			return
		}
		c.t = t
		w := c.dial()
		w.write(append(protocol.AppendInt32(nil, int32(len(body))), body...))
		w.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		w.nc.Read(make([]byte, 1))
		w.nc.Close()
		if got := c.dial().ask(kmsg.NewPtrApiVersionsRequest()).(*kmsg.ApiVersionsResponse); got.ErrorCode != 0 {
			t.Errorf("code %d after the frame", got.ErrorCode)
		}
	})
}
