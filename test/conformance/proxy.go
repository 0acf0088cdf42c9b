package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// proxy stands between the clients and a one-broker cluster, names itself
// wherever the broker names its address, and plants at most one fault.
type proxy struct {
	upstream string
	listener net.Listener
	host     string
	port     int32
	fault    atomic.Pointer[fault]
	trace    *trace // nil, or where requests are noted; set before the first connection
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
}

// secondCopy marks the correlation id of a request that the proxy made up; its answer is swallowed.
const secondCopy = 1 << 30

const frameLimit = 64 << 20

func startProxy(upstream string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p := &proxy{upstream: upstream, listener: l, host: "127.0.0.1", port: int32(l.Addr().(*net.TCPAddr).Port), conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	return p, nil
}

func (p *proxy) addr() string { return net.JoinHostPort(p.host, strconv.Itoa(int(p.port))) }

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) track(c net.Conn, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.conns[c] = true
	} else {
		delete(p.conns, c)
		c.Close()
	}
}

type apiKey struct{ key, version int16 }

func (p *proxy) serve(client net.Conn) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.upstream)
	if err != nil {
		client.Close()
		return
	}
	p.track(client, true)
	p.track(server, true)
	var pending sync.Map // correlation id → apiKey
	var wg sync.WaitGroup
	wg.Go(func() {
		defer server.Close()
		p.requests(client, server, &pending)
	})
	wg.Go(func() {
		defer client.Close()
		p.responses(server, client, &pending)
	})
	wg.Wait()
	p.track(client, false)
	p.track(server, false)
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 || n > frameLimit {
		return nil, fmt.Errorf("read frame: length %d", n)
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func writeFrame(w io.Writer, frame []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func (p *proxy) requests(from io.Reader, to io.Writer, pending *sync.Map) {
	for {
		frame, err := readFrame(from)
		if err != nil || len(frame) < 8 {
			return
		}
		api := apiKey{int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))}
		id := binary.BigEndian.Uint32(frame[4:])
		pending.Store(id, api)
		if p.trace != nil {
			p.trace.add(api)
		}
		f := p.fault.Load()
		if f != nil && f.request != nil {
			if frame, err = changeRequest(api, frame, f.request); err != nil {
				return
			}
		}
		if err := writeFrame(to, frame); err != nil {
			return
		}
		if f != nil && f.twice && api.key == int16(kmsg.Produce) {
			binary.BigEndian.PutUint32(frame[4:], id|secondCopy)
			if err := writeFrame(to, frame); err != nil {
				return
			}
		}
	}
}

// changeRequest decodes a request, applies the fault and encodes it again; the header stays as it is.
func changeRequest(api apiKey, frame []byte, change func(kmsg.Request)) ([]byte, error) {
	req := kmsg.RequestForKey(api.key)
	if req == nil {
		return frame, nil
	}
	req.SetVersion(api.version)
	b := kbin.Reader{Src: frame[8:]}
	b.NullableString() // client id
	if req.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if err := b.Complete(); err != nil && !errors.Is(err, kbin.ErrNotEnoughData) && len(b.Src) == 0 {
		return nil, err
	}
	header := frame[:len(frame)-len(b.Src)]
	if err := req.ReadFrom(b.Src); err != nil {
		return nil, fmt.Errorf("read request %d v%d: %w", api.key, api.version, err)
	}
	change(req)
	return req.AppendTo(append([]byte(nil), header...)), nil
}

func (p *proxy) responses(from io.Reader, to io.Writer, pending *sync.Map) {
	for {
		frame, err := readFrame(from)
		if err != nil {
			return
		}
		id := binary.BigEndian.Uint32(frame)
		if api, ok := pending.LoadAndDelete(id); ok {
			if frame, err = p.changeResponse(api.(apiKey), frame); err != nil {
				return
			}
		} else if id&secondCopy != 0 {
			continue
		}
		if err := writeFrame(to, frame); err != nil {
			return
		}
	}
}

// named are the answers that carry the broker's address.
var named = map[int16]bool{int16(kmsg.Metadata): true, int16(kmsg.FindCoordinator): true, int16(kmsg.DescribeCluster): true}

func (p *proxy) changeResponse(api apiKey, frame []byte) ([]byte, error) {
	f := p.fault.Load()
	planted := f != nil && f.response != nil && f.key == api.key
	if !named[api.key] && !planted {
		return frame, nil
	}
	req := kmsg.RequestForKey(api.key)
	req.SetVersion(api.version)
	resp := req.ResponseKind()
	resp.SetVersion(api.version)
	header := frame[:4]
	if resp.IsFlexible() {
		header = frame[:5] // an empty list of tags
	}
	if err := resp.ReadFrom(frame[len(header):]); err != nil {
		return nil, fmt.Errorf("read response %d v%d: %w", api.key, api.version, err)
	}
	p.rename(resp)
	if planted {
		f.response(resp)
	}
	return resp.AppendTo(append([]byte(nil), header...)), nil
}

func (p *proxy) rename(resp kmsg.Response) {
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		for i := range r.Brokers {
			r.Brokers[i].Host, r.Brokers[i].Port = p.host, p.port
		}
	case *kmsg.DescribeClusterResponse:
		for i := range r.Brokers {
			r.Brokers[i].Host, r.Brokers[i].Port = p.host, p.port
		}
	case *kmsg.FindCoordinatorResponse:
		if r.Port > 0 {
			r.Host, r.Port = p.host, p.port
		}
		for i := range r.Coordinators {
			if r.Coordinators[i].Port > 0 {
				r.Coordinators[i].Host, r.Coordinators[i].Port = p.host, p.port
			}
		}
	}
}
