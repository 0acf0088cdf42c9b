package protocol

import "math"

// FetchRequest is a decoded Fetch request, v0 to v18. Decode fills it again and again and reuses its slices and equal
// strings, so a warm one costs no allocation.
//
//	v0     replica id, max wait, min bytes, [topic name, [partition, fetch offset, max bytes]]
//	v3     + max bytes of the whole answer      v4  + isolation level
//	v5     + log start offset of a follower     v7  + session, forgotten topics (KIP-227)
//	v9     + current leader epoch (KIP-320)     v11 + rack (KIP-392)
//	v12    flexible, + last fetched epoch, cluster id tag
//	v13    topic id in place of the name        v15 replica state tag in place of the replica id
//	v17    + replica directory id tag           v18 + high watermark tag
type FetchRequest struct {
	// ReplicaID is -1 for consumers; ReplicaEpoch -1 where the version has none.
	ReplicaID    int32
	ReplicaEpoch int64
	// MaxWaitMillis and MinBytes bound how long the broker may wait for how much.
	MaxWaitMillis int32
	MinBytes      int32
	// MaxBytes bounds the answer; math.MaxInt32 where the version has none.
	MaxBytes int32
	// IsolationLevel is 0 for read_uncommitted, 1 for read_committed.
	IsolationLevel int8
	// SessionID and SessionEpoch are 0 and -1 where the version has none.
	SessionID    int32
	SessionEpoch int32
	Topics       []FetchTopic
	Forgotten    []ForgottenTopic
	// Rack is the client's rack, empty for none.
	Rack string
	// ClusterID is empty if null or absent.
	ClusterID string
}

// FetchTopic is one topic of a FetchRequest: by Name up to v12 (ID is zero), by ID from v13 on (Name is empty).
type FetchTopic struct {
	Name       string
	ID         UUID
	Partitions []FetchPartition
}

// FetchPartition asks for records of one partition from FetchOffset on.
type FetchPartition struct {
	Index int32
	// CurrentLeaderEpoch is the leader epoch the client believes in, -1 if none.
	CurrentLeaderEpoch int32
	FetchOffset        int64
	// LastFetchedEpoch is the epoch of the last record the client has, -1 if none.
	LastFetchedEpoch int32
	// LogStartOffset is a follower's, -1 from consumers.
	LogStartOffset int64
	// MaxBytes bounds the records of this partition.
	MaxBytes int32
	// ReplicaDirectoryID and HighWatermark come from followers only; zero and math.MaxInt64 otherwise.
	ReplicaDirectoryID UUID
	HighWatermark      int64
}

// ForgottenTopic lists partitions that leave the fetch session.
type ForgottenTopic struct {
	Name       string
	ID         UUID
	Partitions []int32
}

// Decode reads the body of a request of that version, 0 to FetchMaxVersion. After an error the content is undefined.
func (q *FetchRequest) Decode(body []byte, version int16) error {
	if version < 0 || version > FetchMaxVersion {
		return &VersionError{Key: KeyFetch, Version: version}
	}
	r := NewReader(body, version >= 12)
	q.ReplicaID, q.ReplicaEpoch = -1, -1
	if version <= 14 {
		q.ReplicaID = r.Int32()
	}
	q.MaxWaitMillis, q.MinBytes, q.MaxBytes = r.Int32(), r.Int32(), math.MaxInt32
	if version >= 3 {
		q.MaxBytes = r.Int32()
	}
	q.IsolationLevel, q.SessionID, q.SessionEpoch = 0, 0, -1
	if version >= 4 {
		q.IsolationLevel = r.Int8()
	}
	if version >= 7 {
		q.SessionID, q.SessionEpoch = r.Int32(), r.Int32()
	}
	q.decodeTopics(&r, version)
	q.decodeForgotten(&r, version)
	if version >= 11 {
		r.reuseString(&q.Rack)
	} else {
		q.Rack = ""
	}
	q.decodeTags(&r, version)
	return r.Err("fetch request", version)
}

func (q *FetchRequest) decodeTopics(r *Reader, version int16) {
	byID := version >= 13
	q.Topics = emptied(q.Topics)
	for range r.ArrayLen(topicMin(r.flexible, byID)) {
		q.Topics = extend(q.Topics)
		t := &q.Topics[len(q.Topics)-1]
		r.topic(&t.Name, &t.ID, byID)
		t.Partitions = emptied(t.Partitions)
		for range r.ArrayLen(fetchPartitionMin(version)) {
			t.Partitions = extend(t.Partitions)
			t.Partitions[len(t.Partitions)-1].decode(r, version)
			if !r.Ok() {
				return
			}
		}
		r.SkipTags()
		if !r.Ok() {
			return
		}
	}
}

// fetchPartitionMin is the size of a FetchPartition without tags.
func fetchPartitionMin(version int16) int {
	n := 4 + 8 + 4
	if version >= 5 {
		n += 8
	}
	if version >= 9 {
		n += 4
	}
	if version >= 12 {
		n += 4 + 1
	}
	return n
}

func (p *FetchPartition) decode(r *Reader, version int16) {
	*p = FetchPartition{Index: r.Int32(), CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, LogStartOffset: -1, HighWatermark: math.MaxInt64}
	if version >= 9 {
		p.CurrentLeaderEpoch = r.Int32()
	}
	p.FetchOffset = r.Int64()
	if version >= 12 {
		p.LastFetchedEpoch = r.Int32()
	}
	if version >= 5 {
		p.LogStartOffset = r.Int64()
	}
	p.MaxBytes = r.Int32()
	for range r.TagCount() {
		key, b := r.Tag()
		if !r.Ok() {
			return
		}
		tag := NewReader(b, true)
		switch {
		case key == 0 && version >= 17:
			p.ReplicaDirectoryID = tag.UUID()
			r.adopt(&tag)
		case key == 1 && version >= 18:
			p.HighWatermark = tag.Int64()
			r.adopt(&tag)
		}
	}
}

func (q *FetchRequest) decodeForgotten(r *Reader, version int16) {
	q.Forgotten = emptied(q.Forgotten)
	if version < 7 {
		return
	}
	byID := version >= 13
	for range r.ArrayLen(topicMin(r.flexible, byID)) {
		q.Forgotten = extend(q.Forgotten)
		t := &q.Forgotten[len(q.Forgotten)-1]
		r.topic(&t.Name, &t.ID, byID)
		t.Partitions = emptied(t.Partitions)
		for range r.ArrayLen(4) {
			t.Partitions = append(t.Partitions, r.Int32())
		}
		r.SkipTags()
		if !r.Ok() {
			return
		}
	}
}

// decodeTags reads the tags of the request: 0 cluster id (v12 on), 1 replica state (v15 on).
func (q *FetchRequest) decodeTags(r *Reader, version int16) {
	hasCluster := false
	for range r.TagCount() {
		key, b := r.Tag()
		if !r.Ok() {
			return
		}
		tag := NewReader(b, true)
		switch {
		case key == 0:
			hasCluster = tag.reuseNullableString(&q.ClusterID)
			r.adopt(&tag)
		case key == 1 && version >= 15:
			q.ReplicaID, q.ReplicaEpoch = tag.Int32(), tag.Int64()
			tag.SkipTags()
			r.adopt(&tag)
		}
	}
	if !hasCluster {
		q.ClusterID = ""
	}
}
