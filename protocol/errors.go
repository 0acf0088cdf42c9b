package protocol

import (
	"errors"
	"fmt"
)

// ErrMalformed is matched by every error that says: these bytes are not what the protocol allows here. Kafka closes
// a connection that sends such bytes.
var ErrMalformed = errors.New("malformed message")

// ErrUnsupportedVersion is matched by an error about an API key or version that has no codec here.
var ErrUnsupportedVersion = errors.New("unsupported api version")

// DecodeError tells where decoding stopped and why. It matches ErrMalformed.
type DecodeError struct {
	// Message is what was being decoded, such as "produce request"; Version its version.
	Message string
	Version int16
	// Offset is the byte, counted from the start of the decoded slice, at which Problem was seen.
	Offset int
	// Problem is a constant phrase; Value is the offending number, where there is one.
	Problem string
	Value   int64
}

// Error implements error.
func (e *DecodeError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("decode at byte %d: %s (%d)", e.Offset, e.Problem, e.Value)
	}
	return fmt.Sprintf("decode %s v%d at byte %d: %s (%d)", e.Message, e.Version, e.Offset, e.Problem, e.Value)
}

// Is makes errors.Is(err, ErrMalformed) true.
func (e *DecodeError) Is(target error) bool { return target == ErrMalformed }

// VersionError names an API key and version that cannot be decoded. It matches ErrUnsupportedVersion.
type VersionError struct {
	Key     APIKey
	Version int16
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("decode %s: version %d is not supported", e.Key, e.Version)
}

// Is makes errors.Is(err, ErrUnsupportedVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrUnsupportedVersion }
