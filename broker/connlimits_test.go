package broker

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/logtest"
)

// TestConnectionsPerIP: what is more than an address may have is closed, changes are in force at once, exceptions count,
// by name too, and a connection that ends makes room.
func TestConnectionsPerIP(t *testing.T) {
	var said logtest.Output
	c := startCluster(t, 1, Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	first := c.dial()
	set := func(name, value string) {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.SetVersion(0)
		rs := kmsg.NewIncrementalAlterConfigsRequestResource()
		rs.ResourceType = kmsg.ConfigResourceTypeBroker
		cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		cfg.Name, cfg.Value = name, &value
		rs.Configs = append(rs.Configs, cfg)
		req.Resources = append(req.Resources, rs)
		if got := first.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0]; got.ErrorCode != 0 {
			t.Fatalf("%s=%s: code %d: %v", name, value, got.ErrorCode, got.ErrorMessage)
		}
	}
	served := func() *wire {
		t.Helper()
		w := c.dial()
		w.ask(kmsg.NewPtrMetadataRequest())
		return w
	}
	set("max.connections.per.ip", "2")
	second := served()
	c.dial().closed()
	second.nc.Close()
	until(t, "the connection has ended", func() bool { return c.b.server.len() == 1 })
	second = served()
	set("max.connections.per.ip.overrides", "192.0.2.1:9,127.0.0.1:3")
	served()
	c.dial().closed()
	set("max.connections.per.ip.overrides", "localhost:4, 192.0.2.1:1")
	served()
	c.dial().closed()
	set("max.connections.per.ip.overrides", "192.0.2.1:1")
	c.dial().closed()
	second.ask(kmsg.NewPtrMetadataRequest()) // what is there stays
	set("max.connections", "3")
	c.dial().closed()
	want := []string{ // of the first one that met each limit
		"limit=max.connections.per.ip value=2 unlogged=0", "limit=max.connections.per.ip.overrides value=3 unlogged=0", "limit=max.connections value=3 unlogged=0",
	}
	if got := said.With("refuse connection"); len(got) != len(want) || !slices.EqualFunc(got, want, strings.HasSuffix) || !strings.Contains(got[0], "remote=127.0.0.1:") {
		t.Errorf("logged %q, want %q", got, want)
	}
}

// TestRefusalsAreTold: the first connection over a limit is a line, those of the next ten seconds are counted in the next line, and one
// limit's flood does not hide another's.
func TestRefusalsAreTold(t *testing.T) {
	var said logtest.Output
	var l connLimits
	now, log := time.Unix(1000, 0), slog.New(slog.NewTextHandler(&said, nil))
	ip, all := connLimit{"max.connections.per.ip", 2}, connLimit{"max.connections", 30}
	for i := range 20_000 { // a thousand a second
		peer := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: i}
		l.tell(log, now, ip, peer)
		if i == 5000 {
			l.tell(log, now, all, peer)
		}
		now = now.Add(time.Millisecond)
	}
	now = now.Add(time.Hour)
	l.tell(log, now, ip, &net.TCPAddr{IP: net.IPv6loopback, Port: 9})
	want := []string{
		"remote=192.0.2.1:0 limit=max.connections.per.ip value=2 unlogged=0",
		"remote=192.0.2.1:5000 limit=max.connections value=30 unlogged=0",
		"remote=192.0.2.1:10000 limit=max.connections.per.ip value=2 unlogged=9999",
		"remote=[::1]:9 limit=max.connections.per.ip value=2 unlogged=9999",
	}
	if got := said.With("refuse connection"); !slices.EqualFunc(got, want, strings.HasSuffix) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestConnLimitsCount(t *testing.T) {
	var l connLimits
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for i, tt := range []struct {
		addr  netip.Addr
		limit int
		want  bool
	}{{a, 2, true}, {a, 2, true}, {a, 2, false}, {b, 1, true}, {b, 0, false}, {netip.Addr{}, 0, true}} {
		if got := l.count(tt.addr, tt.limit); got != tt.want {
			t.Errorf("number %d, of %s with limit %d: %t", i, tt.addr, tt.limit, got)
		}
	}
	for _, addr := range []netip.Addr{a, b, a, {}} {
		l.uncount(addr)
	}
	if len(l.perIP) != 0 {
		t.Errorf("left over: %v", l.perIP)
	}
}

// TestPace: a second's worth at once, then one after the other, and never a wait of more than a second.
func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	var waits []time.Duration
	for range 6 {
		w := p.take(now, 4)
		now = now.Add(w)
		waits = append(waits, w)
	}
	for i, w := range waits {
		if want := map[bool]time.Duration{true: 0, false: 250 * time.Millisecond}[i < 4]; w != want {
			t.Errorf("number %d waits %v, want %v", i, w, want)
		}
	}
	if now = now.Add(time.Hour); p.take(now, 4) != 0 {
		t.Error("it waits after an hour of rest")
	}
	p.take(now, 1)
	if w := p.take(now, 1); w > time.Second || w <= 0 {
		t.Errorf("rate 1: %v", w)
	}
	if w := p.take(now, 1<<31-1); w > time.Second {
		t.Errorf("without a limit: %v", w)
	}
}
