package broker

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/skeinmq/skein/internal/kconfig"
)

// resolvePatience bounds how long new connections wait for the names in max.connections.per.ip.overrides to be looked up,
// once after each change of it.
const resolvePatience = 2 * time.Second

// connLimits holds what new connections must keep to besides their number (KIP-308, KIP-612). Connections that are there
// stay when a limit is lowered.
type connLimits struct {
	// Owned by the accepting goroutine.
	named   map[string]int32     // overrides, as they were configured
	allowed map[netip.Addr]int32 // the same by address
	pace    pace
	told    map[string]telling // of each limit, by its name

	// Guarded by the server's mutex.
	perIP map[netip.Addr]int32 // connections of each address; none is 0
}

// addrOf is the address of a peer; the zero Addr, to which no limit applies, if it has none.
func addrOf(nc net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

// connLimit is how many connections there may be, and which setting says so.
type connLimit struct {
	name string
	most int
}

// limitOf is how many connections an address may have.
func (l *connLimits) limitOf(ctx context.Context, addr netip.Addr, conf *kconfig.BrokerConfig) connLimit {
	if !maps.Equal(l.named, conf.ConnectionOverrides) {
		l.named, l.allowed = conf.ConnectionOverrides, resolveHosts(ctx, conf.ConnectionOverrides)
	}
	if n, ok := l.allowed[addr]; ok {
		return connLimit{"max.connections.per.ip.overrides", int(n)}
	}
	return connLimit{"max.connections.per.ip", int(conf.ConnectionsPerIP)}
}

// tellEvery is the time between two lines about connections that are over one limit: each is counted, and a flood of them is no flood of
// lines.
const tellEvery = 10 * time.Second

// telling is what the log was told about a limit.
type telling struct {
	at     time.Time // of the last line
	silent int       // connections refused since, without a line
}

// tell logs that a connection is refused, unless another one was a short time ago. The next line says how many were left out.
func (l *connLimits) tell(log *slog.Logger, now time.Time, over connLimit, peer net.Addr) {
	t := l.told[over.name]
	if !t.at.IsZero() && now.Sub(t.at) < tellEvery {
		t.silent++
	} else {
		log.Warn("refuse connection", "remote", peer.String(), "limit", over.name, "value", over.most, "unlogged", t.silent)
		t = telling{at: now}
	}
	if l.told == nil {
		l.told = make(map[string]telling)
	}
	l.told[over.name] = t
}

// resolveHosts looks up names; those that nobody knows are left out.
func resolveHosts(ctx context.Context, hosts map[string]int32) map[netip.Addr]int32 {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	out := make(map[netip.Addr]int32)
	for host, n := range hosts {
		if a, err := netip.ParseAddr(host); err == nil {
			out[a.Unmap()] = n
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			continue
		}
		for _, a := range found {
			out[a.Unmap()] = n
		}
	}
	return out
}

// count adds a connection of an address, unless that would be more than limit.
func (l *connLimits) count(addr netip.Addr, limit int) bool {
	if !addr.IsValid() {
		return true
	}
	if int(l.perIP[addr]) >= limit {
		return false
	}
	if l.perIP == nil {
		l.perIP = make(map[netip.Addr]int32)
	}
	l.perIP[addr]++
	return true
}

// uncount takes a connection of an address away.
func (l *connLimits) uncount(addr netip.Addr) {
	if l.perIP[addr]--; l.perIP[addr] <= 0 {
		delete(l.perIP, addr)
	}
}

// pace lets so many things a second happen, with one second's worth at once.
type pace struct {
	left float64
	at   time.Time
}

// take takes one and returns how long it has to wait; at most a second at any rate.
func (p *pace) take(now time.Time, rate int32) time.Duration {
	most := float64(rate)
	if p.at.IsZero() {
		p.left = most
	}
	p.left = min(p.left+now.Sub(p.at).Seconds()*most, most) - 1
	p.at = now
	if p.left >= 0 {
		return 0
	}
	return time.Duration(min(-p.left/most, 1) * float64(time.Second))
}
