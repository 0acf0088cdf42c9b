package group

import (
	"encoding/binary"
)

// consumerProtocol is the protocol type of consumers; what members say in others (Connect's,
// for one) is opaque.
const consumerProtocol = "consumer"

// subscribe works out which topics the members consume.
func (g *Group) subscribe() {
	g.topics, g.topicsKnown = nil, false
	switch {
	case g.protocolType != consumerProtocol:
	case len(g.members) == 0:
		g.topicsKnown = true
	case g.protocol != "":
		topics := make(map[string]bool)
		for _, mem := range g.members {
			if !addTopics(topics, mem.metadata(g.protocol)) {
				return
			}
		}
		g.topics, g.topicsKnown = topics, true
	}
}

// addTopics reads the topics of a consumer's subscription: version int16, then an array of
// strings, which every version begins with. It says whether b could be read.
func addTopics(into map[string]bool, b []byte) bool {
	const versionSize, countSize, lengthSize = 2, 4, 2
	if len(b) < versionSize+countSize || int16(binary.BigEndian.Uint16(b)) < 0 {
		return false
	}
	b = b[versionSize:]
	n := int32(binary.BigEndian.Uint32(b))
	b = b[countSize:]
	if n < 0 || int(n) > len(b)/lengthSize {
		return false
	}
	for range n {
		if len(b) < lengthSize {
			return false
		}
		size := int16(binary.BigEndian.Uint16(b))
		b = b[lengthSize:]
		if size < 0 || int(size) > len(b) {
			return false
		}
		into[string(b[:size])] = true
		b = b[size:]
	}
	return true
}
