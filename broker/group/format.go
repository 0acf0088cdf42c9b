package group

import (
	"encoding/binary"
	"fmt"
	"time"
)

// The stored metadata of a classic group. docs/format/raft.md says the same in words.
//
//	 0         1      2
//	+---------+------+--------+
//	| version | kind | body … |   kind 1: classic group
//	+---------+------+--------+
//
//	generation, state since (ms), protocol type, protocol, leader,
//	count, count × { member id, instance id, client id, host, rebalance timeout (ms),
//	                 session timeout (ms), metadata of the protocol, assignment }
//
// Numbers are zigzag varints, counts and lengths unsigned varints, strings and byte strings
// a length and their bytes. Only the metadata of the selected protocol is kept, as in Kafka:
// after a restart a member that speaks others rebalances when it next joins. A group with
// members and no leader was about to rebalance: one of them had left.
const (
	groupVersion = 1
	kindClassic  = 1

	groupVersionOff = 0
	groupKindOff    = 1
	groupHeaderSize = 2

	minMember = 8 // bytes
)

// appendGroup encodes g; assignments, if not nil, stand in for the members' own.
func appendGroup(dst []byte, g *Group, assignments map[string][]byte) []byte {
	dst = append(dst, groupVersion, kindClassic)
	dst = binary.AppendVarint(dst, int64(g.generation))
	dst = binary.AppendVarint(dst, g.since)
	if g.state == Empty || g.state == PreparingRebalance && g.previous == Empty {
		// No generation has members: only that the group exists.
		dst = appendBytes(appendBytes(appendBytes(dst, g.protocolType), ""), "")
		return binary.AppendUvarint(dst, 0)
	}
	leader := g.leader
	if g.state == PreparingRebalance {
		leader = "" // whoever loads it shall go on with the rebalance
	}
	for _, s := range []string{g.protocolType, g.protocol, leader} {
		dst = appendBytes(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(len(g.members)))
	for _, mem := range g.members {
		assignment := mem.assignment
		if assignments != nil {
			assignment = assignments[mem.id]
		}
		for _, s := range []string{mem.id, mem.instance, mem.clientID, mem.host} {
			dst = appendBytes(dst, s)
		}
		dst = binary.AppendVarint(dst, mem.rebalanceTimeout.Milliseconds())
		dst = binary.AppendVarint(dst, mem.sessionTimeout.Milliseconds())
		dst = appendBytes(dst, mem.metadata(g.protocol))
		dst = appendBytes(dst, assignment)
	}
	return dst
}

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// decodeGroup reads what appendGroup wrote. Nothing of b is kept.
func decodeGroup(name string, b []byte) (*Group, error) {
	if len(b) < groupHeaderSize || b[groupVersionOff] != groupVersion || b[groupKindOff] != kindClassic {
		return nil, fmt.Errorf("decode group %q: version or kind: %w", name, ErrFormat)
	}
	r := reader{b: b[groupHeaderSize:]}
	g := newGroup(name, time.Time{})
	g.generation = int32(r.varint())
	g.since = r.varint()
	g.protocolType, g.protocol, g.leader = r.string(), r.string(), r.string()
	due := g.leader == ""
	n := r.uvarint()
	if n > uint64(len(r.b)/minMember) {
		r.bad = true
	}
	for i := uint64(0); i < n && !r.bad; i++ {
		mem := &member{id: r.string(), instance: r.string(), clientID: r.string(), host: r.string()}
		mem.rebalanceTimeout = time.Duration(int32(r.varint())) * time.Millisecond
		mem.sessionTimeout = time.Duration(int32(r.varint())) * time.Millisecond
		mem.protocols = []Protocol{{Name: g.protocol, Metadata: []byte(r.string())}}
		mem.assignment = []byte(r.string())
		if g.byID[mem.id] != nil || mem.instance != "" && g.static[mem.instance] != nil {
			r.bad = true
			break
		}
		g.add(mem)
	}
	if r.bad || len(r.b) != 0 {
		return nil, fmt.Errorf("decode group %q at byte %d: %w", name, len(b)-len(r.b), ErrFormat)
	}
	if len(g.members) > 0 {
		g.state = Stable
		g.due = due
		if g.byID[g.leader] == nil {
			g.leader = g.members[0].id
		}
	} else {
		g.leader = ""
	}
	g.subscribe()
	return g, nil
}

// reader decodes with one sticky failure.
type reader struct {
	b   []byte // left
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) string() string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
