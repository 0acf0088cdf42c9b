package protocol

// ProduceRequest is a decoded Produce request, v0 to v13. Decode fills it again and again and reuses its slices and
// equal strings, so a warm one costs no allocation.
//
//	v0     acks, timeout, [topic name, [partition, records]]
//	v3     + transactional id
//	v9     flexible
//	v13    topic id in place of the name
type ProduceRequest struct {
	// TransactionalID is empty if null; HasTransactionalID tells.
	TransactionalID    string
	HasTransactionalID bool
	// Acks is 0, 1 or -1 from honest clients; the broker answers others with CodeInvalidRequiredAcks.
	Acks          int16
	TimeoutMillis int32
	Topics        []ProduceTopic
}

// ProduceTopic is one topic of a ProduceRequest: by Name up to v12 (ID is zero), by ID from v13 on (Name is empty).
type ProduceTopic struct {
	Name       string
	ID         UUID
	Partitions []ProducePartition
}

// ProducePartition is the data for one partition. Records aliases the frame and is nil if null.
type ProducePartition struct {
	Index   int32
	Records []byte
}

// ProduceMaxVersion and FetchMaxVersion are the newest versions that are coded here.
const (
	ProduceMaxVersion = 13
	FetchMaxVersion   = 18
)

// keepElements bounds how many elements a reused slice keeps from one request to the next: one huge request must not
// pin its memory for the life of a connection.
const keepElements = 4096

// extend returns s with one more element, taking back the old element, and what it holds, when there is capacity.
func extend[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}

// emptied returns s for filling again.
func emptied[T any](s []T) []T {
	if cap(s) > keepElements {
		return nil
	}
	return s[:0]
}

// topicMin and friends are the fewest bytes an element of an array can take.
func topicMin(flexible, id bool) int {
	switch {
	case id:
		return 16 + 1 + 1 // id, partition count, tags
	case flexible:
		return 1 + 1 + 1 // name, partition count, tags
	default:
		return 2 + 4
	}
}

// topic reads the name or the id that a topic begins with.
func (r *Reader) topic(name *string, id *UUID, byID bool) {
	if byID {
		*name, *id = "", r.UUID()
		return
	}
	*id = UUID{}
	r.reuseString(name)
}

// Decode reads the body of a request of that version, 0 to ProduceMaxVersion. After an error the content is undefined.
func (q *ProduceRequest) Decode(body []byte, version int16) error {
	if version < 0 || version > ProduceMaxVersion {
		return &VersionError{Key: KeyProduce, Version: version}
	}
	flexible, byID := version >= 9, version >= 13
	r := NewReader(body, flexible)
	if version >= 3 {
		q.HasTransactionalID = r.reuseNullableString(&q.TransactionalID)
	} else {
		q.TransactionalID, q.HasTransactionalID = "", false
	}
	q.Acks, q.TimeoutMillis = r.Int16(), r.Int32()
	partitionMin := 4 + 4
	if flexible {
		partitionMin = 4 + 1 + 1
	}
	q.Topics = emptied(q.Topics)
	for range r.ArrayLen(topicMin(flexible, byID)) {
		q.Topics = extend(q.Topics)
		t := &q.Topics[len(q.Topics)-1]
		r.topic(&t.Name, &t.ID, byID)
		t.Partitions = emptied(t.Partitions)
		for range r.ArrayLen(partitionMin) {
			t.Partitions = append(t.Partitions, ProducePartition{Index: r.Int32(), Records: r.NullableBytes()})
			r.SkipTags()
			if !r.Ok() {
				break
			}
		}
		r.SkipTags()
		if !r.Ok() {
			break
		}
	}
	r.SkipTags()
	return r.Err("produce request", version)
}
