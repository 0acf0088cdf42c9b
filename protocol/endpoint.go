package protocol

// LeaderEpoch tells a client, along with an error, who leads a partition now (KIP-951). The zero value is absent.
type LeaderEpoch struct {
	NodeID int32
	Epoch  int32
	// Known tells a present value from an absent one.
	Known bool
}

// NodeEndpoint is how to reach a broker named by a LeaderEpoch of the same answer (KIP-951).
type NodeEndpoint struct {
	NodeID int32
	Host   string
	Port   int32
	// Rack is null if empty.
	Rack string
}

// appendLeaderTag appends the tagged field `CurrentLeader`: number, size, leader id, epoch, no tags.
func appendLeaderTag(dst []byte, number uint32, l LeaderEpoch) []byte {
	dst = AppendUvarint(dst, number)
	dst = append(dst, 4+4+1)
	dst = AppendInt32(dst, l.NodeID)
	dst = AppendInt32(dst, l.Epoch)
	return append(dst, 0)
}

// appendNodesTag appends the tags of an answer: none, or `NodeEndpoints` as number 0.
func appendNodesTag(dst []byte, nodes []NodeEndpoint) []byte {
	if len(nodes) == 0 {
		return append(dst, 0)
	}
	size := uvarintSize(uint32(len(nodes)) + 1)
	for i := range nodes {
		host, rack := uint32(len(nodes[i].Host)), uint32(len(nodes[i].Rack))
		size += 4 + uvarintSize(host+1) + int(host) + 4 + uvarintSize(rack+1) + int(rack) + 1
	}
	dst = append(dst, 1, 0) // one tag, number 0
	dst = AppendUvarint(dst, uint32(size))
	dst = AppendArrayLen(dst, len(nodes), true)
	for i := range nodes {
		n := &nodes[i]
		dst = AppendInt32(dst, n.NodeID)
		dst = AppendString(dst, n.Host, true)
		dst = AppendInt32(dst, n.Port)
		dst = AppendNullableString(dst, n.Rack, n.Rack != "", true)
		dst = append(dst, 0)
	}
	return dst
}
