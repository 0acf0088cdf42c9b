// Package protocol is the Kafka wire: frames, request and response headers, message bodies and error codes.
//
// Bodies are of two kinds. The hot ones (Produce, Fetch) and those that a stranger may send before any login
// (ApiVersions, SaslHandshake, SaslAuthenticate) are decoded by hand: into structs that are used again, without
// allocating once warm, and without believing a single length or count. Every other request goes through kmsg, the
// generated codec of franz-go, but only after [Walk] has checked all its lengths and counts against the bytes that
// are there: kmsg's decoders trust their input, and a body of seven bytes can hold a core for a minute.
// See docs/adr/0002-decode-hot-and-pre-login-requests-by-hand.md.
//
// What it promises: no input makes it panic, work longer than in proportion to the input, or allocate more than a
// small multiple of it; every refusal is a [*DecodeError] that tells where and why. Decoded byte slices alias the
// frame; decoded strings never do. What it refuses to know: connections, topics, logs, what an error means to the
// broker. Record batches live in protocol/record.
package protocol
