package record

import (
	"fmt"
	"iter"
)

// Record is one record of any magic, with absolute offset.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since 1970, NoTimestamp for none
	// Key and Value are nil if null.
	Key, Value []byte
	Headers    []KeyValue
}

// Records yields the records of batches and message sets of any magic that follow one another, each decompressed to at
// most limit bytes (0 for the default). An incomplete batch at the end is ignored, as in the answer to a fetch. It stops
// after an error. Checksums of magic 2 are not verified. The slices of a record are valid until the next one is asked for.
func Records(set []byte, limit int) iter.Seq2[Record, error] {
	if limit <= 0 {
		limit = DefaultDecompressLimit
	}
	return func(yield func(Record, error) bool) {
		buf := getScratch()
		defer putScratch(buf)
		for {
			size, err := batchSize(set)
			if err != nil {
				yield(Record{}, err)
				return
			}
			if size == 0 {
				return
			}
			b := set[:size]
			set = set[size:]
			var more bool
			if b[magicOff] < 2 {
				more = yieldOld(b, buf, limit, yield)
			} else {
				more = yieldBatch(b, buf, limit, yield)
			}
			if !more {
				return
			}
		}
	}
}

func yieldBatch(b []byte, buf *[]byte, limit int, yield func(Record, error) bool) bool {
	h, err := ParseHeader(b)
	if err != nil {
		return yield(Record{}, err) && false
	}
	records := b[HeaderSize:]
	if c := h.Attributes.Codec(); c != None {
		records, err = decompress((*buf)[:0], c, records, limit)
		*buf = records[:0]
		if err != nil {
			return yield(Record{}, decompressError(err)) && false
		}
	}
	var e element
	for i := range h.Count {
		if records, err = e.next(records); err != nil {
			return yield(Record{}, refuse(ErrInvalid, fmt.Sprintf("record %d of %d: %v", i, h.Count, err))) && false
		}
		r := Record{Offset: h.BaseOffset + int64(e.offsetDelta), Timestamp: h.BaseTimestamp + e.timestampDelta, Key: e.key, Value: e.value, Headers: e.keyValues()}
		if h.Attributes.LogAppendTime() {
			r.Timestamp = h.MaxTimestamp
		}
		if !yield(r, nil) {
			return false
		}
	}
	return true
}

// keyValues decodes the headers, which next has checked.
func (e *element) keyValues() []KeyValue {
	if e.headerCount == 0 {
		return nil
	}
	out := make([]KeyValue, 0, e.headerCount)
	b := e.headers
	for range e.headerCount {
		var key, value []byte
		key, _, b, _ = sized(b)
		value, _, b, _ = sized(b)
		out = append(out, KeyValue{Key: string(key), Value: value})
	}
	return out
}

func yieldOld(b []byte, buf *[]byte, limit int, yield func(Record, error) bool) bool {
	m, err := parseMessage(b)
	if err != nil {
		return yield(Record{}, err) && false
	}
	if m.codec == None {
		return yield(m.record(), nil)
	}
	more := true
	set, err := m.unwrap(*buf, limit, func(m *message) error {
		if more = yield(m.record(), nil); !more {
			return errStop
		}
		return nil
	})
	*buf = set[:0]
	if err != nil && more {
		return yield(Record{}, err) && false
	}
	return more
}

// errStop ends an iteration that the consumer has left.
var errStop = refuse(ErrEmpty, "iteration ended")

func (m *message) record() Record {
	return Record{Offset: m.offset, Timestamp: m.timestamp, Key: m.key, Value: m.value}
}
