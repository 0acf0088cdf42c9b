package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Rules are what a topic and a produce request allow.
type Rules struct {
	// MaxBytes bounds the batch as it came and as it is stored (max.message.bytes); 0 for no bound.
	MaxBytes int
	// Recompress stores with Codec, whatever the producer chose; false is compression.type=producer.
	Recompress bool
	Codec      Codec
	Level      Level // of Codec
	// LogAppendTime stamps Now on all records (message.timestamp.type).
	LogAppendTime bool
	// Now is the broker's time in milliseconds since 1970. BeforeMax and AfterMax bound how far record timestamps may lie
	// behind and ahead of it (message.timestamp.before.max.ms and .after.max.ms); 0 means no bound, so pass 1 for a config
	// of 0.
	Now, BeforeMax, AfterMax int64
	// RequireKeys refuses records without key (cleanup.policy=compact).
	RequireKeys bool
	// OldFormats accepts magic 0 and 1 (Produce v0–v2). AllowZstd is for Produce v7 on, and old formats never have it.
	OldFormats, AllowZstd bool
	// DecompressLimit bounds what a batch may decompress to; 0 is DefaultDecompressLimit.
	DecompressLimit int
	// TrustCompressed skips looking inside compressed batches.
	TrustCompressed bool
}

func (r *Rules) limit() int {
	if r.DecompressLimit > 0 {
		return r.DecompressLimit
	}
	return DefaultDecompressLimit
}

// Batch is a batch that may be stored.
type Batch struct {
	Header
	// Bytes is the whole batch. It aliases what was validated, unless another one had to be made.
	Bytes []byte
}

// Validate checks the records of one partition of a produce request and returns the one batch to store: base offset 0,
// to be set with Stamp. It may write into records: max timestamp, append time and CRC. Errors are *Error.
//
// Whatever follows the batch and is not a whole batch itself is dropped, as Kafka does.
func Validate(records []byte, rules *Rules) (Batch, error) {
	size, err := batchSize(records)
	switch {
	case err != nil:
		return Batch{}, err
	case size > 0 && records[magicOff] < 2 && rules.OldFormats, size == 0 && rules.OldFormats:
		return validateOld(records, rules)
	case size == 0:
		return Batch{}, refuse(ErrInvalid, "a partition must have a record batch")
	case records[magicOff] != 2:
		return Batch{}, refuse(ErrInvalid, "this produce version takes batches of magic 2 only")
	}
	b, rest := records[:size:size], records[size:]
	if more, err := batchSize(rest); err != nil {
		return Batch{}, err
	} else if more > 0 {
		return Batch{}, refuse(ErrInvalid, "a partition must have one record batch only")
	}
	if size < HeaderSize {
		return Batch{}, refuse(ErrCorrupt, "batch ends within its header")
	}
	h := header(b)
	if err := checkHeader(b, &h, rules); err != nil {
		return Batch{}, err
	}
	codec := h.Attributes.Codec()
	recompress := rules.Recompress && rules.Codec != codec
	found := contents{maxTimestamp: h.MaxTimestamp, consecutive: true}
	if codec == None && !recompress {
		if err := found.inspect(b[HeaderSize:], &h, rules); err != nil {
			return Batch{}, err
		}
	} else if recompress || !rules.TrustCompressed {
		return validateDecompressed(b, &h, rules, recompress)
	}
	return finish(b, &h, found, rules, nil)
}

// validateDecompressed is the part of Validate that needs the records decompressed.
func validateDecompressed(b []byte, h *Header, rules *Rules, recompress bool) (Batch, error) {
	buf := getScratch()
	defer putScratch(buf)
	records, err := decompress((*buf)[:0], h.Attributes.Codec(), b[HeaderSize:], rules.limit())
	*buf = records[:0]
	if err != nil {
		return Batch{}, decompressError(err)
	}
	var found contents
	if err := found.inspect(records, h, rules); err != nil {
		return Batch{}, err
	}
	if !recompress && found.consecutive {
		records = nil // b can stay
	}
	return finish(b, h, found, rules, records)
}

func decompressError(err error) error {
	if errors.Is(err, errDecompressed) {
		return refuse(ErrTooLarge, err.Error())
	}
	return refuse(ErrInvalid, err.Error())
}

// batchSize returns the size of the batch of any magic that b begins with, 0 if there is no whole one.
func batchSize(b []byte) (int, error) {
	if len(b) < overhead {
		return 0, nil
	}
	length := int32(binary.BigEndian.Uint32(b[lengthOff:]))
	if length < minLength {
		return 0, refuse(ErrCorrupt, "batch length is less than a batch can have")
	}
	if len(b) < upToMagic {
		return 0, nil
	}
	if b[magicOff] > 2 {
		return 0, refuse(ErrCorrupt, "magic is not known")
	}
	if int(length) > len(b)-overhead {
		return 0, nil
	}
	return int(length) + overhead, nil
}

// checkHeader checks all that the header tells, in the order of Kafka's checks.
func checkHeader(b []byte, h *Header, rules *Rules) error {
	codec := h.Attributes.Codec()
	switch {
	case !codec.Valid():
		return refuse(ErrInvalid, "compression codec is not known")
	case codec == Zstd && !rules.AllowZstd:
		return refuse(ErrCodec, "this produce version cannot carry zstd")
	case h.BaseOffset != 0:
		return refuse(ErrInvalid, fmt.Sprintf("base offset of a produced batch must be 0, not %d", h.BaseOffset))
	case rules.MaxBytes > 0 && len(b) > rules.MaxBytes:
		return refuse(ErrTooLarge, fmt.Sprintf("batch of %d bytes exceeds the limit of %d", len(b), rules.MaxBytes))
	case Checksum(b) != h.CRC:
		return refuse(ErrCorrupt, fmt.Sprintf("crc is %08x, stored %08x", Checksum(b), h.CRC))
	case h.LastOffsetDelta < 0:
		return refuse(ErrInvalid, "offset range is empty")
	case h.Count <= 0:
		return refuse(ErrInvalid, fmt.Sprintf("count of %d records is invalid", h.Count))
	case int64(h.LastOffsetDelta)+1 != int64(h.Count):
		return refuse(ErrInvalid, fmt.Sprintf("offset range of %d and count of %d do not agree", int64(h.LastOffsetDelta)+1, h.Count))
	case h.Attributes.Control():
		return refuse(ErrInvalid, "clients may not write control records")
	case h.HasProducer() && h.BaseSequence < 0:
		return refuse(ErrInvalid, fmt.Sprintf("sequence %d of producer %d is invalid", h.BaseSequence, h.ProducerID))
	}
	return nil
}

// contents is what a walk over the records found.
type contents struct {
	maxTimestamp int64
	consecutive  bool // the offset deltas are 0, 1, 2 …
}

// inspect walks over the records, decompressed, of a batch.
func (c *contents) inspect(records []byte, h *Header, rules *Rules) error {
	*c = contents{maxTimestamp: NoTimestamp, consecutive: true}
	var bad refusals
	lo, hi := rules.timestampRange()
	at := 0
	for i := range h.Count {
		timestampDelta, offsetDelta, hasKey, end := skim(records, at)
		if end < 0 {
			_, err := new(element).next(records[at:])
			return refuse(ErrInvalid, fmt.Sprintf("record %d of %d: %v", i, h.Count, err))
		}
		at = end
		timestamp := h.BaseTimestamp + timestampDelta
		if h.Attributes.LogAppendTime() {
			timestamp = h.MaxTimestamp
		}
		switch {
		case rules.RequireKeys && !hasKey:
			bad.add(i, ErrInvalid, "a compacted topic takes no record without key")
		case !rules.LogAppendTime && timestamp != NoTimestamp && (timestamp < lo || timestamp > hi):
			bad.add(i, ErrTimestamp, fmt.Sprintf("timestamp %d is not between %d and %d", timestamp, lo, hi))
		case rules.LogAppendTime && h.Attributes.LogAppendTime():
			// Only here: on other topics Kafka just clears the bit, and so does finish.
			bad.add(i, ErrTimestamp, "producers may not set the log append time")
		}
		c.maxTimestamp = max(c.maxTimestamp, timestamp)
		c.consecutive = c.consecutive && offsetDelta == i
	}
	if at < len(records) {
		return refuse(ErrInvalid, fmt.Sprintf("%d bytes after the last of %d records", len(records)-at, h.Count))
	}
	return bad.err()
}

// timestampRange returns the least and greatest timestamp that are allowed.
func (r *Rules) timestampRange() (lo, hi int64) {
	lo, hi = math.MinInt64, math.MaxInt64
	if r.BeforeMax > 0 && r.BeforeMax < math.MaxInt64-max(r.Now, 0) {
		lo = r.Now - r.BeforeMax
	}
	if r.AfterMax > 0 && r.AfterMax < math.MaxInt64-max(r.Now, 0) {
		hi = r.Now + r.AfterMax
	}
	return lo, hi
}

// refusals collects records that are refused.
type refusals struct {
	kind  error
	count int
	list  []RecordError
}

func (r *refusals) add(index int32, kind error, reason string) {
	if r.kind != ErrTimestamp { // one bad timestamp decides, as in Kafka
		r.kind = kind
	}
	r.count++
	if len(r.list) < maxRecordErrors {
		r.list = append(r.list, RecordError{Index: index, Reason: reason})
	}
}

func (r *refusals) err() error {
	if r.count == 0 {
		return nil
	}
	return &Error{Kind: r.kind, Reason: fmt.Sprintf("%d records were refused, the first: %s", r.count, r.list[0].Reason), Records: r.list}
}

// finish makes of a valid batch the one to store. records, if not nil, are its decompressed records, and mean that a new
// batch has to be made: with another codec, or because of gaps between offset deltas.
func finish(b []byte, h *Header, found contents, rules *Rules, records []byte) (Batch, error) {
	codec, level := h.Attributes.Codec(), Level(0)
	if records == nil && !found.consecutive {
		records = b[HeaderSize:] // not compressed
	}
	switch {
	case records != nil:
		if rules.Recompress {
			codec, level = rules.Codec, rules.Level
		}
		b = rebuild(h, records, codec, level, found)
		if rules.MaxBytes > 0 && len(b) > rules.MaxBytes {
			return Batch{}, refuse(ErrTooLarge, fmt.Sprintf("recompressed batch of %d bytes exceeds the limit of %d", len(b), rules.MaxBytes))
		}
		if rules.LogAppendTime {
			SetLogAppendTime(b, rules.Now)
		}
	case rules.LogAppendTime:
		SetLogAppendTime(b, rules.Now)
	case found.maxTimestamp != h.MaxTimestamp || h.Attributes.LogAppendTime():
		setMaxTimestamp(b, h.Attributes&^attrLogAppendTime, found.maxTimestamp)
	}
	return Batch{Header: header(b), Bytes: b}, nil
}

// rebuild makes a batch of records that were inspected, with offset deltas that have no gaps.
func rebuild(h *Header, records []byte, codec Codec, level Level, found contents) []byte {
	out := *h
	out.Attributes = h.Attributes&^(attrCodec|attrLogAppendTime) | Attributes(codec)
	out.MaxTimestamp = found.maxTimestamp
	if found.consecutive {
		return appendBatch(nil, &out, level, records)
	}
	var e element
	plain := make([]byte, 0, len(records))
	for i := range h.Count {
		rest, err := e.next(records)
		if err != nil {
			break // inspect has seen them all
		}
		plain, records = e.appendTo(plain, e.timestampDelta, i), rest
	}
	return appendBatch(nil, &out, level, plain)
}
