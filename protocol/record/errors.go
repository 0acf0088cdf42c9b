package record

import "errors"

// What is wrong with a batch. The comment names the Kafka error code that clients expect.
var (
	// ErrCorrupt: length, magic or checksum are wrong. CORRUPT_MESSAGE.
	ErrCorrupt = errors.New("corrupt batch")
	// ErrInvalid: the batch breaks a rule. INVALID_RECORD.
	ErrInvalid = errors.New("invalid batch")
	// ErrTimestamp: at least one record has a timestamp out of range. INVALID_TIMESTAMP.
	ErrTimestamp = errors.New("timestamp out of range")
	// ErrTooLarge: the batch is over the topic's limit, or decompresses to more than allowed. MESSAGE_TOO_LARGE.
	ErrTooLarge = errors.New("batch too large")
	// ErrCodec: this request or fetch version may not carry the codec. UNSUPPORTED_COMPRESSION_TYPE.
	ErrCodec = errors.New("unsupported compression")
	// ErrFormat: the old format cannot carry the batch. UNSUPPORTED_FOR_MESSAGE_FORMAT.
	ErrFormat = errors.New("unsupported for message format")
	// ErrEmpty: a message set of the old formats holds no whole message. Kafka appends nothing and reports success.
	ErrEmpty = errors.New("no message")
)

// Error is a refused batch. It matches Kind.
type Error struct {
	// Kind is one of the sentinels of this package.
	Kind error
	// Reason is a sentence for the producer.
	Reason string
	// Records lists the records that were refused one by one, at most maxRecordErrors of them.
	Records []RecordError
}

// RecordError is a refused record; Index counts the records of the batch from 0.
type RecordError struct {
	Index  int32
	Reason string
}

// maxRecordErrors bounds the answer to a batch in which everything is wrong.
const maxRecordErrors = 100

// Error implements error.
func (e *Error) Error() string { return "validate batch: " + e.Kind.Error() + ": " + e.Reason }

// Is makes errors.Is(err, e.Kind) true.
func (e *Error) Is(target error) bool { return target == e.Kind }

func refuse(kind error, reason string) error { return &Error{Kind: kind, Reason: reason} }
