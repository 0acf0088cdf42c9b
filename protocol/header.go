package protocol

// RequestHeader precedes every request. A connection keeps one and parses each header into it.
//
//	v0  key int16, version int16, correlation id int32          (ControlledShutdown v0 only)
//	v1  … client id nullable string
//	v2  … client id nullable string (not compact), tagged fields  (flexible request versions, KIP-482)
type RequestHeader struct {
	Key           APIKey
	Version       int16
	CorrelationID int32
	// ClientID is the client's name for itself, empty if null. Parse keeps the old string if it is equal.
	ClientID string
	// ClientIDNull tells a null client id from an empty one.
	ClientIDNull bool
}

// Parse decodes the header of a frame (without its size) and returns the body, which aliases the frame. The header
// version follows from key and version; a key that Kafka does not define is an error that matches
// ErrUnsupportedVersion, with Key, Version and CorrelationID set. A version newer than any known is not an error here:
// it is flexible if the newest known one is, which is what the answer to an unknown ApiVersions version needs (KIP-511).
func (h *RequestHeader) Parse(frame []byte) (body []byte, err error) {
	r := NewReader(frame, false)
	h.Key, h.Version, h.CorrelationID = APIKey(r.Int16()), r.Int16(), r.Int32()
	if !r.Ok() {
		return nil, r.Err("request header", 0)
	}
	if !h.Key.Valid() || h.Version < 0 {
		return nil, &VersionError{Key: h.Key, Version: h.Version}
	}
	if h.Key == KeyControlledShutdown && h.Version == 0 {
		h.ClientID, h.ClientIDNull = "", true
		return frame[r.Offset():], nil
	}
	h.ClientIDNull = !r.reuseNullableString(&h.ClientID)
	headerVersion := int16(1)
	if h.Key.Flexible(h.Version) {
		headerVersion = 2
		r.flexible = true
		r.SkipTags()
	}
	if err := r.Err("request header", headerVersion); err != nil {
		return nil, err
	}
	return frame[r.Offset():], nil
}

// AppendTo appends the header as a client sends it, for tools and tests.
func (h *RequestHeader) AppendTo(dst []byte) []byte {
	dst = AppendInt16(dst, int16(h.Key))
	dst = AppendInt16(dst, h.Version)
	dst = AppendInt32(dst, h.CorrelationID)
	if h.Key == KeyControlledShutdown && h.Version == 0 {
		return dst
	}
	dst = AppendNullableString(dst, h.ClientID, !h.ClientIDNull, false)
	return AppendNoTags(dst, h.Key.Flexible(h.Version))
}

// AppendResponseHeader appends the header of the answer to a request of that key and version: v0 (correlation id) or,
// for flexible versions, v1 (correlation id, tagged fields). ApiVersions is always answered with v0, because a client
// must be able to read the answer before it knows what the broker speaks.
func AppendResponseHeader(dst []byte, key APIKey, version int16, correlationID int32) []byte {
	dst = AppendInt32(dst, correlationID)
	return AppendNoTags(dst, key != KeyApiVersions && key.Flexible(version))
}
