package protocol

// ProduceResponse is what AppendTo encodes, v0 to v13. Fields that a version does not have are left out.
//
//	v0     [topic name, [partition, error, base offset]]
//	v1     + throttle time                v2  + log append time
//	v5     + log start offset             v8  + record errors, error message (KIP-467)
//	v9     flexible                       v10 + current leader and node endpoint tags (KIP-951)
//	v13    topic id in place of the name
type ProduceResponse struct {
	Topics         []ProduceResponseTopic
	ThrottleMillis int32
	// Nodes says how to reach the leaders named by the partitions.
	Nodes []NodeEndpoint
}

// ProduceResponseTopic is one topic, named the way the request did.
type ProduceResponseTopic struct {
	Name       string
	ID         UUID
	Partitions []ProduceResponsePartition
}

// ProduceResponsePartition is the outcome for one partition.
type ProduceResponsePartition struct {
	Index int32
	Code  Code
	// BaseOffset is the offset of the first record, -1 after an error.
	BaseOffset int64
	// LogAppendTime is in milliseconds since 1970 for topics that stamp it, -1 for others.
	LogAppendTime int64
	// LogStartOffset is -1 if not known.
	LogStartOffset int64
	// RecordErrors names the records that made the batch fail.
	RecordErrors []RecordError
	// Message explains Code; null if empty.
	Message string
	// CurrentLeader is sent along with CodeNotLeaderOrFollower and its like.
	CurrentLeader LeaderEpoch
}

// RecordError is one record that validation refused.
type RecordError struct {
	// Index counts the records of the batch from 0.
	Index int32
	// Message is null if empty.
	Message string
}

// AppendTo appends the body of the answer to a request of that version.
func (p *ProduceResponse) AppendTo(dst []byte, version int16) []byte {
	flexible := version >= 9
	dst = AppendArrayLen(dst, len(p.Topics), flexible)
	for i := range p.Topics {
		t := &p.Topics[i]
		dst = appendTopic(dst, t.Name, &t.ID, version >= 13, flexible)
		dst = AppendArrayLen(dst, len(t.Partitions), flexible)
		for j := range t.Partitions {
			dst = t.Partitions[j].appendTo(dst, version)
		}
		dst = AppendNoTags(dst, flexible)
	}
	if version >= 1 {
		dst = AppendInt32(dst, p.ThrottleMillis)
	}
	switch {
	case version >= 10:
		return appendNodesTag(dst, p.Nodes)
	case flexible:
		return append(dst, 0)
	default:
		return dst
	}
}

func appendTopic(dst []byte, name string, id *UUID, byID, flexible bool) []byte {
	if byID {
		return append(dst, id[:]...)
	}
	return AppendString(dst, name, flexible)
}

func (p *ProduceResponsePartition) appendTo(dst []byte, version int16) []byte {
	flexible := version >= 9
	dst = AppendInt32(dst, p.Index)
	dst = AppendInt16(dst, int16(p.Code))
	dst = AppendInt64(dst, p.BaseOffset)
	if version >= 2 {
		dst = AppendInt64(dst, p.LogAppendTime)
	}
	if version >= 5 {
		dst = AppendInt64(dst, p.LogStartOffset)
	}
	if version >= 8 {
		dst = AppendArrayLen(dst, len(p.RecordErrors), flexible)
		for i := range p.RecordErrors {
			e := &p.RecordErrors[i]
			dst = AppendInt32(dst, e.Index)
			dst = AppendNullableString(dst, e.Message, e.Message != "", flexible)
			dst = AppendNoTags(dst, flexible)
		}
		dst = AppendNullableString(dst, p.Message, p.Message != "", flexible)
	}
	if version >= 10 && p.CurrentLeader.Known {
		dst = append(dst, 1) // one tag
		return appendLeaderTag(dst, 0, p.CurrentLeader)
	}
	return AppendNoTags(dst, flexible)
}
