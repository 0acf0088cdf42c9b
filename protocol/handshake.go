package protocol

// ApiVersionsRequest is sent before any login, so it is decoded by hand.
//
//	v0–v2  empty
//	v3, v4 client software name, client software version, tagged fields (KIP-511; v4 differs in the answer only)
type ApiVersionsRequest struct {
	SoftwareName    string
	SoftwareVersion string
}

// Decode reads the body of a request of that version, 0 to 4.
func (q *ApiVersionsRequest) Decode(body []byte, version int16) error {
	if version < 0 || version > 4 {
		return &VersionError{Key: KeyApiVersions, Version: version}
	}
	r := NewReader(body, KeyApiVersions.Flexible(version))
	if version >= 3 {
		r.reuseString(&q.SoftwareName)
		r.reuseString(&q.SoftwareVersion)
		r.SkipTags()
	} else {
		q.SoftwareName, q.SoftwareVersion = "", ""
	}
	return r.Err("api versions request", version)
}

// SaslHandshakeRequest names the mechanism that the client wants to log in with, v0 and v1. After v0 the tokens follow
// as bare frames, after v1 in SaslAuthenticate requests.
type SaslHandshakeRequest struct {
	Mechanism string
}

// Decode reads the body of a request of that version, 0 or 1.
func (q *SaslHandshakeRequest) Decode(body []byte, version int16) error {
	if version < 0 || version > 1 {
		return &VersionError{Key: KeySaslHandshake, Version: version}
	}
	r := NewReader(body, false)
	r.reuseString(&q.Mechanism)
	return r.Err("sasl handshake request", version)
}

// SaslAuthenticateRequest carries one token of the mechanism, v0 to v2 (v2 is flexible).
type SaslAuthenticateRequest struct {
	// Auth aliases the frame.
	Auth []byte
}

// Decode reads the body of a request of that version, 0 to 2.
func (q *SaslAuthenticateRequest) Decode(body []byte, version int16) error {
	if version < 0 || version > 2 {
		return &VersionError{Key: KeySaslAuthenticate, Version: version}
	}
	r := NewReader(body, KeySaslAuthenticate.Flexible(version))
	q.Auth = r.Bytes()
	r.SkipTags()
	return r.Err("sasl authenticate request", version)
}
